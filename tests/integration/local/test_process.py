"""Children end with their parent, and when they are told to."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from easel_local.process import Child, Guard, last_words, tail
from tests.processes import eventually, is_alive

PARENT = """
import sys, time
from easel_local.process import Child
print(Child(["sleep", "60"]).pid, flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the guard does it")
async def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    argv = [sys.executable, "-c", PARENT]
    parent = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not is_alive(child), "the child's end")


async def test_the_guard_ends_what_it_watches_when_its_pipe_closes() -> None:
    guard = Guard()
    watched, forgotten = Child(["sleep", "60"]), Child(["sleep", "60"])
    guard.watch(watched.pid, signal.SIGKILL)
    guard.watch(forgotten.pid, signal.SIGKILL)
    guard.forget(forgotten.pid)
    guard.close()
    assert await watched.wait() == -signal.SIGKILL
    assert forgotten.returncode is None
    await forgotten.stop(signal.SIGKILL, grace_s=5)


async def test_a_child_that_heeds_the_signal_ends_by_it() -> None:
    child = Child(["sleep", "60"])
    assert await child.stop(grace_s=20) == -signal.SIGTERM


async def test_a_deaf_child_is_killed_after_its_grace(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = Child([sys.executable, "-c", STUBBORN], log=log)
    await eventually(lambda: tail(log) == "deaf", "the child's first word")
    assert await child.stop(grace_s=0.05) == -signal.SIGKILL


async def test_what_a_child_left_behind_is_killed_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = Child(["sh", "-c", "sleep 60 & echo $!; wait"], log=log)
    await eventually(lambda: tail(log).isdigit(), "the grandchild")
    grandchild = int(tail(log))
    await child.stop(grace_s=5)
    await eventually(lambda: not is_alive(grandchild), "the grandchild's end")


async def test_many_may_wait_for_one_end() -> None:
    child = Child(["true"])
    assert set(await asyncio.gather(*(child.wait() for _ in range(3)))) == {0}
    assert await child.wait() == 0


async def test_a_program_that_is_not_there_ends_with_a_word_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = Child([str(tmp_path / "missing")], log=log)
    assert await child.wait() == 125
    assert "No such file" in tail(log)


def test_a_log_is_told_in_short(tmp_path: Path) -> None:
    log = tmp_path / "log"
    trace = "Traceback:\n  File x\nValueError: no such plan"
    lines = ["plain", json.dumps({"event": "process.failed", "exception": trace}), "[1]", "{}"]
    log.write_text("\n".join(lines))
    told = ["  plain", "  process.failed: ValueError: no such plan", "  [1]", "  {}"]
    assert last_words(log).splitlines() == told
    assert last_words(tmp_path / "missing") == ""
