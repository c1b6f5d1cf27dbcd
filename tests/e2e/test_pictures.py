"""What a user sees: pictures that fit their prompts, progress on the way, a bill that adds up."""

import random

import httpx
import pytest
from httpx_sse import connect_sse

from tests.e2e.stack import Stack, User
from tests.shapes import check

pytestmark = [pytest.mark.timeout(180)]

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")
SHAPES = ("circle", "square", "triangle", "heart", "cross")


def prompts(count: int) -> list[str]:
    pick = random.Random(20260101)
    found = []
    for _ in range(count):
        colour, background = pick.sample(COLOURS, 2)
        found.append(f"a {colour} {pick.choice(SHAPES)} on a {background} background")
    return found


@pytest.fixture(scope="module")
def alice(stack: Stack) -> User:
    return stack.client("alice", "enterprise")


def test_thirty_prompts_have_their_colours(alice: User, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = prompts(30)
    jobs = {alice.submit(prompt, seed=number)["id"]: prompt for number, prompt in enumerate(wanted)}
    verdicts = []
    for job_id, prompt in jobs.items():
        job = alice.wait(job_id)
        assert job["state"] == "succeeded", job
        verdicts.append(check(alice.picture(job), prompt))
    tally = {
        name: sum(bool(getattr(verdict, name)) for verdict in verdicts)
        for name in ("background", "colour", "count", "shape", "all_right")
    }
    with capsys.disabled():
        print(f"\nof {len(verdicts)} prompts right: {tally}")  # noqa: T201 (a figure for people)
    assert sum(verdict.colour_right for verdict in verdicts) >= 27, tally


def test_the_same_seed_gives_the_same_bytes(alice: User) -> None:
    prompt = "a large red circle on a white background"
    jobs = [alice.wait(alice.submit(prompt, seed=seed)["id"]) for seed in (7, 7, 8)]
    first, again, other = (alice.picture(job) for job in jobs)
    assert first == again
    assert first != other


def test_a_seed_that_was_not_given_is_told_and_works_again(alice: User) -> None:
    first = alice.wait(alice.submit("a blue square on a yellow background")["id"])
    again = alice.wait(
        alice.submit("a blue square on a yellow background", seed=first["seed"])["id"]
    )
    assert alice.picture(first) == alice.picture(again)


def test_events_tell_position_progress_and_end(stack: Stack, alice: User) -> None:
    job = alice.submit("a green heart on a black background", steps=30)
    events: list[tuple[str, dict[str, object]]] = []
    with httpx.Client(base_url=stack.url, timeout=30) as http:
        token = stack.token(user="alice", plan="enterprise")
        headers = {"Authorization": f"Bearer {token}"}
        path = f"/v1/generations/{job['id']}/events"
        with connect_sse(http, "GET", path, headers=headers) as source:
            events.extend((event.event, event.json()) for event in source.iter_sse() if event.data)
    names = [name for name, _ in events]
    assert names[-1] == "succeeded"
    assert "progress" in names
    steps = [body["step"] for name, body in events if name == "progress"]
    assert steps == sorted(steps)  # type: ignore[type-var]
    assert all(body["steps"] == 30 for name, body in events if name == "progress")
    previews = [body.get("preview") for name, body in events if name == "progress"]
    assert any(str(preview).startswith("data:image/") for preview in previews if preview)


def test_the_bill_is_the_price_of_what_ran(stack: Stack) -> None:
    user = stack.client("frugal", "pro")
    before = user.settled_credits()
    job = user.submit("a red star on a white background", n=2)
    done = user.wait(job["id"])
    assert len(done["images"]) == 2
    assert before - user.settled_credits() == job["price_millicredits"]
    assert user.job(job["id"])["charged_millicredits"] == job["price_millicredits"]


def test_a_cancelled_job_pays_for_its_steps_only(stack: Stack) -> None:
    user = stack.client("fickle", "pro")
    before = user.settled_credits()
    job = user.submit("a red star on a white background", n=4, steps=100)
    user.wait_running(job["id"])
    assert user.cancel(job["id"]).status_code == 202
    ended = user.wait(job["id"])
    assert ended["state"] == "cancelled"
    paid = before - user.settled_credits()
    done = ended["progress"]["step"]
    assert 0 < done < 400
    assert paid == job["price_millicredits"] * done // 400


def test_over_the_limit_is_429_and_nothing_is_held(stack: Stack) -> None:
    user = stack.client("eager", "free")
    before = user.settled_credits()
    answers = [user.try_submit("a red star on a white background", steps=60) for _ in range(6)]
    codes = [answer.status_code for answer in answers]
    assert 429 in codes
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"
    spent = sum(
        user.wait(answer.json()["id"])["price_millicredits"]
        for answer in answers
        if answer.status_code == 202
    )
    assert before - user.settled_credits() == spent


def test_without_credits_it_is_402_and_nothing_happened(stack: Stack) -> None:
    user = stack.client("broke", "free")
    before = user.settled_credits()
    large = {"n": 4, "steps": 100}
    jobs = [user.submit("a red star on a white background", **large) for _ in range(3)]
    left = user.credits()["available_millicredits"]
    answer = user.try_submit("a red star on a white background", **large)
    assert answer.status_code == 402, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert user.credits()["available_millicredits"] == left == before - 3 * _price(jobs)
    for job in reversed(jobs):
        user.cancel(job["id"])
        user.wait(job["id"])


def _price(jobs: list[dict[str, object]]) -> int:
    (price,) = {job["price_millicredits"] for job in jobs}
    assert isinstance(price, int)
    return price
