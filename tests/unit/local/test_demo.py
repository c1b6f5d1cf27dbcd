"""What the demo asks of the gateway, and how it understands the answers."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from easel_kit.errors import DependencyDown
from easel_local.cli.client import Easel, Refused
from easel_local.cli.demo import Wish, charges, timeline

Handler = Callable[[httpx.Request], httpx.Response]


def easel(handler: Handler) -> Easel:
    transport = httpx.MockTransport(handler)
    return Easel(httpx.AsyncClient(transport=transport, base_url="http://gateway.test"))


def stream(*events: tuple[str, str, object]) -> httpx.Response:
    text = "".join(
        f"id: {key}\nevent: {name}\ndata: {json.dumps(data)}\n\n" for key, name, data in events
    )
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


def wish(**fields: object) -> Wish:
    given = {"prompt": "a pear", "out": Path("x.png"), "model": "m", "user": "u", "plan": "pro"}
    return Wish(**{**given, **fields})  # type: ignore[arg-type]


def test_what_was_not_said_is_left_to_the_model() -> None:
    assert wish().request() == {"prompt": "a pear", "model": "m"}


def test_what_was_said_is_asked_for_zero_too() -> None:
    asked = wish(size=(64, 32), steps=7, guidance=0.0, seed=0, negative_prompt="").request()
    assert asked["width"] == 64
    assert asked["height"] == 32
    assert (asked["steps"], asked["guidance"], asked["seed"]) == (7, 0.0, 0)
    assert asked["negative_prompt"] == ""


async def test_a_problem_of_the_caller_is_told_with_its_fields() -> None:
    problem = {
        "detail": "The request is not valid.",
        "errors": [{"field": "prompt", "reason": "must not be empty"}],
    }
    with pytest.raises(Refused) as refused:
        await easel(lambda _: httpx.Response(422, json=problem)).submit({})
    assert str(refused.value) == "The request is not valid.\n  prompt: must not be empty"


async def test_a_problem_is_told_once() -> None:
    problem = {"detail": "steps: too many", "errors": [{"field": "steps", "reason": "too many"}]}
    with pytest.raises(Refused) as refused:
        await easel(lambda _: httpx.Response(422, json=problem)).submit({})
    assert str(refused.value) == "steps: too many"


@pytest.mark.parametrize("status", [401, 500, 503])
async def test_a_problem_of_a_service_is_not_the_callers(status: int) -> None:
    with pytest.raises(DependencyDown, match=f"answers {status}"):
        await easel(lambda _: httpx.Response(status, text="oops")).submit({})


async def test_a_question_asked_too_often_is_asked_again_later() -> None:
    answers = [
        httpx.Response(429, headers={"retry-after": "0"}),
        httpx.Response(200, json={"credits": {"held_millicredits": 0}}),
    ]
    assert await easel(lambda _: answers.pop(0)).credits() == {"held_millicredits": 0}


async def test_a_wish_over_a_limit_is_not_repeated() -> None:
    answers = [httpx.Response(429, json={"detail": "too many waiting jobs"})]
    with pytest.raises(Refused, match="too many waiting"):
        await easel(lambda _: answers.pop(0)).submit({})


async def test_a_gateway_that_is_away_is_reported() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(DependencyDown, match="GET /v1/me"):
        await easel(refuse).credits()


async def test_events_end_with_the_last_one() -> None:
    answer = stream(
        ("1", "queued", {"position": 2}),
        ("2", "succeeded", {"generation": {}}),
        ("3", "progress", {}),
    )
    events = [name async for name, _ in easel(lambda _: answer).events("job_1")]
    assert events == ["queued", "succeeded"]


async def test_an_event_without_data_is_none() -> None:
    opening = "retry: 2000\n\n"
    rest = stream(("1", "succeeded", {})).text
    answer = httpx.Response(200, text=opening + rest, headers={"content-type": "text/event-stream"})
    assert [name async for name, _ in easel(lambda _: answer).events("job_1")] == ["succeeded"]


async def test_a_broken_stream_goes_on_after_the_last_event_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("easel_local.cli.client._RETRY_S", 0)
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        match len(asked):
            case 1:
                return stream(("7", "progress", {"step": 1, "steps": 2}))
            case 2:
                raise httpx.ConnectError("refused", request=request)
            case _:
                return stream(("8", "failed", {}))

    events = [name async for name, _ in easel(answer).events("job_1")]
    assert events == ["progress", "failed"]
    assert asked == [None, "7", "7"]


async def test_a_stream_of_an_unknown_job_is_refused() -> None:
    problem = {"title": "Not found", "detail": "there is no job job_1"}
    with pytest.raises(Refused, match="no job"):
        async for _ in easel(lambda _: httpx.Response(404, json=problem)).events("job_1"):
            pytest.fail("there are no events")


HOLD = {"kind": "hold", "millicredits": -410}


async def test_the_ledger_is_read_once_the_hold_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easel_local.cli.client._POLL_S", 0)
    pages = [[], [HOLD], [{"kind": "capture", "millicredits": 0}, HOLD]]

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.params["job_id"] == "job_1"
        return httpx.Response(200, json={"items": pages.pop(0)})

    assert len(await easel(answer).settled_lines("job_1")) == 2
    assert pages == []


async def test_a_hold_that_does_not_end_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("easel_local.cli.client._SETTLE_DEADLINE_S", -1)
    answer = httpx.Response(200, json={"items": [HOLD]})
    assert await easel(lambda _: answer).settled_lines("job_1") == [HOLD]


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        ([{"kind": "capture", "millicredits": 0}], "0.410 held, 0.410 charged, 49.590 left"),
        ([{"kind": "capture", "millicredits": 164}], "0.410 held, 0.246 charged, 49.590 left"),
        ([{"kind": "release", "millicredits": 410}], "0.410 held, 0.000 charged, 49.590 left"),
        ([], "0.410 held, not charged yet, 49.590 left"),
    ],
)
def test_hold_charge_and_balance_are_told(ended: list[dict[str, object]], told: str) -> None:
    assert charges([*ended, HOLD], 49_590) == told


async def test_a_picture_is_fetched_through_its_signed_url() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/images/img_1/content":
            return httpx.Response(307, headers={"location": "/objects/x?signature=s"})
        return httpx.Response(200, content=b"png")

    assert await easel(answer).picture("/v1/images/img_1/content") == b"png"


def test_the_timeline_counts_from_the_queue() -> None:
    moments = {
        "queued_at": "2030-01-01T00:00:00.000000Z",
        "claimed_at": "2030-01-01T00:00:00.012000Z",
        "first_step_at": None,
        "finished_at": "2030-01-01T00:00:01.500000Z",
    }
    assert timeline(moments) == "queued 0 ms -> claimed 12 ms -> done 1500 ms"
    assert timeline({}) == "unknown"
