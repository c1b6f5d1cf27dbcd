"""Each service is killed -9 in the middle of a job: it ends once and is paid for once."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import Stack, User, running_stack, wait_for

pytestmark = [pytest.mark.timeout(240)]

PROMPT = "a red circle on a white background"
LONG = {"steps": 100, "n": 4}  # a few seconds on one thread
HOLD_TTL_S = "4"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two workers; holds that expire soon, so that a stranded one would show."""
    folder: Path = tmp_path_factory.mktemp("crashes") / "state"
    with running_stack(
        folder, workers=2, BILLING_HOLD_TTL_S=HOLD_TTL_S, BILLING_SWEEP_INTERVAL_S="1"
    ) as running:
        yield running
        explained = running.ledger_check()
        assert explained.returncode == 0, explained.stdout + explained.stderr


@pytest.fixture
def user(stack: Stack, request: pytest.FixtureRequest) -> User:
    return stack.client(request.node.name.replace("[", "-").rstrip("]"), "pro")


def paid_once(stack: Stack, user: User, job: dict[str, object], before: int) -> None:
    """One terminal event, one capture of the price, nothing held."""
    assert before - user.settled_credits() == job["price_millicredits"]
    events = stack.rows(
        "scheduler", "SELECT count(*) FROM events WHERE job_id = %s AND type <> 'queued'", job["id"]
    )
    assert events == [(1,)]
    lines = user.get("/v1/billing/ledger", params={"job_id": str(job["id"])}).json()["items"]
    assert sorted(line["kind"] for line in lines).count("capture") == 1


def worker_of(stack: Stack, job_id: object) -> str:
    """The worker whose log says that it began the job."""

    def named() -> str | None:
        for name in ("worker-1", "worker-2"):
            for line in stack.log(name):
                if line.get("event") == "attempt.started" and line.get("job_id") == job_id:
                    return name
        return None

    return wait_for(named, "the worker of the job")


def test_a_worker_dies_and_another_finishes_its_job(stack: Stack, user: User) -> None:
    before = user.settled_credits()
    job = user.submit(PROMPT, **LONG)
    user.wait_running(job["id"])
    victim = worker_of(stack, job["id"])
    stack.signal(victim, signal.SIGKILL)
    ended = user.wait(job["id"])
    assert ended["state"] == "succeeded", ended
    assert ended["attempts"] == 2
    paid_once(stack, user, job, before)
    stack.wait_ready(victim)


@pytest.mark.parametrize("service", ["scheduler", "billing", "gateway"])
def test_a_service_dies_and_the_job_ends_once(stack: Stack, user: User, service: str) -> None:
    before = user.settled_credits()
    job = user.submit(PROMPT, **LONG)
    user.wait_running(job["id"])
    stack.kill(service)
    ended = user.wait(job["id"])
    assert ended["state"] == "succeeded", ended
    assert ended["attempts"] == 1, "the worker kept its attempt"
    assert len(user.picture(ended)) > 100
    paid_once(stack, user, job, before)


@pytest.mark.parametrize("service", ["scheduler", "billing", "gateway"])
def test_a_service_dies_while_the_job_waits(stack: Stack, user: User, service: str) -> None:
    before = user.settled_credits()
    jobs = [user.submit(PROMPT, steps=60) for _ in range(4)]
    stack.kill(service)
    for job in jobs:
        assert user.wait(job["id"])["state"] == "succeeded"
    total = sum(job["price_millicredits"] for job in jobs)
    assert before - user.settled_credits() == total


@pytest.mark.parametrize("service", ["gateway", "scheduler"])
def test_the_answer_of_a_submit_is_lost(stack: Stack, user: User, service: str) -> None:
    """Killed as soon as the job is committed: the picture is made and paid for, once."""
    before = user.settled_credits()
    (known,) = stack.rows("scheduler", "SELECT count(*) FROM jobs")[0]
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(_answer, user)
        wait_for(
            lambda: stack.rows("scheduler", "SELECT count(*) FROM jobs")[0][0] > known,
            "the commit of the job",
        )
        stack.kill(service)
        asking.result(timeout=60)
    (job,) = user.jobs()
    ended = user.wait(job["id"])
    assert ended["state"] == "succeeded"
    paid_once(stack, user, ended, before)


def test_a_submit_that_never_arrived_strands_no_hold(stack: Stack, user: User) -> None:
    """The scheduler is frozen past every deadline: whatever it does later, the sums are right."""
    before = user.settled_credits()
    stack.signal("scheduler", signal.SIGSTOP)
    try:
        code = _answer(user)
    finally:
        stack.signal("scheduler", signal.SIGCONT)
    assert code in {503, 504}
    left = user.settled_credits()
    ended = [user.wait(job["id"]) for job in user.jobs()]
    assert before - left == sum(job["price_millicredits"] for job in ended)


def _answer(user: User) -> int:
    try:
        return user.try_submit(PROMPT).status_code
    except httpx.TransportError:
        return 0


def test_one_trace_leads_through_all_logs(stack: Stack, user: User) -> None:
    job = user.wait(user.submit(PROMPT)["id"])
    user.settled_credits()

    def traces(service: str) -> set[str]:
        return {
            line["trace_id"]
            for line in stack.log(service)
            if line.get("job_id") == job["id"] and "trace_id" in line
        }

    worker = worker_of(stack, job["id"])
    common = wait_for(
        lambda: set.intersection(
            *(traces(name) for name in ("gateway", "scheduler", worker, "billing"))
        ),
        "one trace id in four logs",
        within_s=10,
    )
    assert len(common) == 1


def test_logs_hold_no_secret(stack: Stack, user: User) -> None:
    secret = "purple heart on an orange"
    token = stack.token(user="careful", plan="pro")
    job = user.wait(user.submit(f"a {secret} background")["id"])
    link = user.get(job["images"][0]["url"]).headers["location"]
    assert httpx.get(link, timeout=10).status_code == 200
    httpx.get(f"{stack.url}/v1/me", headers={"Authorization": f"Bearer {token}"}, timeout=10)
    signature = link.split("signature=")[1].split("&")[0]
    for file in (stack.folder / "logs").glob("*.log"):
        if file.stem == "postgres":
            continue
        text = file.read_text()
        for kept in (secret, token, signature):
            assert kept not in text, f"{file.name} tells {json.dumps(kept)[:20]}"
