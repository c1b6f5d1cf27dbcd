"""Judgement of pictures, figures, targets and tables of the engine's benchmark."""

import json
from collections.abc import Sequence

import pytest
from PIL import Image

from bench.engine.pictures import answer, fault_of, read_answer
from bench.engine.plan import Plan
from bench.engine.replay import Phase, Reply, Served, ask_all, judged, play
from bench.engine.report import as_json, as_text
from bench.engine.results import (
    Alone,
    Cancelled,
    Preemption,
    Results,
    Trials,
    Turn,
    forward_s,
    latency,
    per_cpu_s,
)
from bench.engine.targets import Target, targets
from bench.engine.trace import Request, burst

MACHINE = {
    "cores": 2,
    "cpu": "some",
    "kernel": "6",
    "python": "3.11",
    "load_1m": 0.1,
    "torch": "2",
    "diffusers": "0",
    "transformers": "5",
    "litserve": "0",
    "pinned": "on core 1",
}


def _picture(size_px: int = 64) -> Image.Image:
    return Image.linear_gradient("L").resize((size_px, size_px)).convert("RGB")


def _asked(seed: int = 0, steps: int = 4) -> Request:
    return Request("tiny", "a red star", steps, 2.5, "ddim", seed)


def _phase(*latencies_s: float, cpu_s: float = 1.0, fault: str = "") -> Phase:
    served = tuple(Served(4, latency_s, fault) for latency_s in latencies_s)
    return Phase(wall_s=1.0, cpu_s=cpu_s, served=served)


def _turn(per_cpu: float) -> Turn:
    return Turn(_phase(1.0, cpu_s=1 / per_cpu), _phase(1.0, 2.0, 3.0, cpu_s=3 / per_cpu))


# --- pictures


def test_a_picture_survives_its_answer() -> None:
    assert read_answer(answer(_picture())).tobytes() == _picture().tobytes()


@pytest.mark.parametrize("body", [None, {}, {"png": 3}, {"png": "!"}, {"png": "aGVsbG8="}, []])
def test_an_answer_without_a_picture_is_refused(body: object) -> None:
    with pytest.raises(ValueError, match="no picture"):
        read_answer(body)


@pytest.mark.parametrize(
    ("picture", "fault"),
    [
        (_picture(), ""),
        (_picture(32), "32x32 instead of 64x64"),
        (_picture().convert("L"), "L instead of RGB"),
        (Image.new("RGB", (64, 64), (9, 80, 200)), "blank"),
    ],
)
def test_pictures_are_judged(picture: Image.Image, fault: str) -> None:
    assert fault_of(picture, _asked()) == fault


# --- replay


def test_batches_of_equal_settings_lose_nothing_and_mix_nothing_up() -> None:
    batches: list[list[Request]] = []

    def draw(asked: Sequence[Request]) -> list[Image.Image]:
        batches.append(list(asked))
        return [Image.new("RGB", (64, 64), (one.seed, 0, 0)) for one in asked]

    arrivals = burst([_asked(n, steps=4 + n % 2) for n in range(10)])
    replies = play(arrivals, draw, most=4, window_s=0.0)
    assert [[one.seed for one in batch] for batch in batches] == [
        [0, 2, 4, 6],
        [1, 3, 5, 7],
        [8],
        [9],
    ]
    for n, reply in enumerate(replies):
        assert isinstance(reply.answer, Image.Image)
        assert reply.answer.getpixel((0, 0)) == (n, 0, 0)


async def test_a_request_that_fails_is_counted_as_lost_with_its_reason() -> None:
    async def ask(asked: Request) -> object:
        if asked.seed == 1:
            raise ConnectionError("gone")
        return {} if asked.seed == 2 else answer(_picture())

    arrivals = burst([_asked(n) for n in range(4)])
    served = judged(arrivals, await ask_all(arrivals, ask), read_answer)
    assert [one.fault for one in served] == [
        "",
        "ConnectionError: gone",
        "no picture in the answer",
        "",
    ]


def test_every_request_is_judged() -> None:
    with pytest.raises(ValueError, match="zip"):
        judged(burst([_asked(), _asked()]), [Reply(1.0)], read_answer)


# --- figures


def test_only_good_pictures_count_for_each_cpu_second() -> None:
    assert per_cpu_s([_phase(1, 1, 1, cpu_s=2.0), _phase(1, cpu_s=2.0, fault="blank")]) == 0.75


def test_latencies_of_short_jobs_are_their_own() -> None:
    served = (Served(4, 1.0, ""), Served(50, 9.0, ""), Served(4, 2.0, ""))
    found = latency([Phase(1.0, 1.0, served)])
    assert (found.mean_s, found.p95_s, found.short_p95_s) == (4.0, 9.0, 2.0)
    assert latency([Phase(1.0, 1.0, served[1:2])]).short_p95_s is None


def test_a_forward_is_shorter_than_a_jobs_step_where_jobs_take_turns() -> None:
    together = [[(n, n * 1.0 + job / 100) for n in range(1, 5)] for job in range(4)]
    assert forward_s(together) == pytest.approx(1.0, rel=0.02)
    in_turn = [[(n, n * 1.0 + (job % 2) / 2 + job / 1000) for n in range(1, 5)] for job in range(4)]
    assert forward_s(in_turn) == pytest.approx(0.5, rel=0.01)
    not_all_heard_of = [[(1, 1.0), (3, 3.0), (7, 7.0)]]
    assert forward_s(not_all_heard_of) == pytest.approx(1.0)


# --- targets


def _named(found: Sequence[Target], part: str) -> Target:
    (target,) = [one for one in found if part in one.name]
    return target


def _results(ours: Sequence[float], theirs: Sequence[float]) -> Results:
    results = Results(capacity_per_s={("tiny", "mixed"): 3.0})
    for system, rates in (("easel-http", ours), ("litserve", theirs)):
        results.turns["tiny", "mixed", system] = [_turn(rate) for rate in rates]
    return results


def test_ratios_are_taken_round_by_round() -> None:
    for target in targets(_results([8, 30, 9], [2, 10, 2])):
        assert target.value == pytest.approx(4.0)
        assert target.spread == "3.00-4.50"
        assert target.reached
    assert not targets(_results([5, 5, 5], [2, 2, 2]))[0].reached


def test_trials_are_judged_at_their_bounds() -> None:
    def judged_of(trials: Trials) -> list[Target]:
        return targets(Results(trials={"tiny": trials}))

    good = judged_of(
        Trials(
            alone=[Alone(0.97, 1.0)] * 3,
            preemptions=[Preemption(3.0, 1.0)] * 20 + [Preemption(9.0, 1.0)],
            cancels=[Cancelled(2, 7, 7)] * 20 + [Cancelled(5, 9, 9)],
        )
    )
    assert [target.reached for target in good] == [True] * 4
    bad = judged_of(
        Trials(
            alone=[Alone(0.96, 1.0)] * 3,
            preemptions=[Preemption(3.0, 1.0)] * 10 + [Preemption(3.1, 1.0)],
            cancels=[Cancelled(3, 7, 8)] * 3,
        )
    )
    assert [target.reached for target in bad] == [False] * 4
    assert _named(bad, "first step").found == "3.10 steps"


def test_what_was_not_measured_is_not_judged() -> None:
    assert targets(Results(trials={"tiny": Trials()})) == []


def test_a_burst_is_judged_beside_the_whole() -> None:
    results = Results()
    slow_stream = Turn(_phase(1.0, cpu_s=1.0), _phase(1.0, cpu_s=0.25))
    results.turns["tiny", "mixed", "easel-http"] = [slow_stream]
    results.turns["tiny", "mixed", "litserve"] = [_turn(1.0)]
    whole, burst_alone = targets(results)
    assert whole.value == pytest.approx(1.6)
    assert burst_alone.value == pytest.approx(4.0)
    assert (whole.reached, burst_alone.reached) == (False, True)


# --- reports


def test_reports_tell_of_what_is_lost_and_what_could_not_be_measured() -> None:
    results = _results([8, 9], [2, 3])
    lost = Turn(_phase(1.0, 1.0, fault="blank"), _phase(2.0))
    results.turns["tiny", "mixed", "easel-http"].append(lost)
    results.trouble.append("litserve: cannot be installed")
    text = as_text(MACHINE, Plan(), results, 5)
    assert "tiny, mixed, easel-http: 2 times blank" in text
    assert "litserve: cannot be installed" in text
    found = json.loads(as_json(MACHINE, Plan(), results, 5))
    assert found["lost"] == ["tiny, mixed, easel-http: 2 times blank"]
    assert found["turns"][0]["summary"]["burst"]["mean_s"] == 2.0


def test_a_table_shows_medians_and_spreads() -> None:
    text = as_text(MACHINE, Plan(), _results([8, 9, 10], [2, 3, 2]), 5)
    assert "9.00 (8.00-10.00)" in text
    assert "4.00x" in text
    assert "on core 1" in text
