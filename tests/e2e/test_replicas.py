"""A stack with two schedulers: either may die at any moment and nobody notices."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, running_stack

pytestmark = [pytest.mark.timeout(240)]

PROMPT = "a red circle on a white background"
LONG = {"steps": 100, "n": 2}  # some seconds on one thread
SCHEDULERS = ("scheduler", "scheduler-2")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("replicas") / "state"
    with running_stack(folder, schedulers=2) as running:
        yield running


def _served(stack: Stack, scheduler: str) -> set[object]:
    return {line.get("rpc") for line in stack.log(scheduler) if line["event"] == "rpc.finished"}


def test_both_schedulers_serve(stack: Stack) -> None:
    user = stack.client("visitor")
    for _ in range(2):
        ended = user.wait(user.submit(PROMPT)["id"])
        assert len(user.picture(ended)) > 100
    for name in SCHEDULERS:
        assert any("JobService" in str(rpc) for rpc in _served(stack, name))
    shown = subprocess.run(
        [sys.executable, "-m", "easel_local", "status", "--state", str(stack.folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert {line.split()[0] for line in shown.splitlines() if "good" in line} >= set(SCHEDULERS)


@pytest.mark.parametrize("scheduler", SCHEDULERS)  # one of them has the worker's stream
def test_a_scheduler_dies_and_the_other_goes_on(stack: Stack, scheduler: str) -> None:
    user = stack.client(f"owner-of-{scheduler}")
    job = user.submit(PROMPT, **LONG)
    user.wait_running(job["id"])
    stack.signal(scheduler, signal.SIGKILL)
    next_job = user.submit(PROMPT)
    for one in (job, next_job):
        ended = user.wait(one["id"])
        assert ended["state"] == "succeeded", ended
        assert ended["attempts"] == 1, "the worker kept its attempt"
    assert user.settled_credits() > 0
    stack.wait_ready(scheduler)
