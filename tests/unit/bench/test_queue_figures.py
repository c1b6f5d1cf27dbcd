"""Figures and targets of the queue's benchmark."""

import pytest

from bench.queue.figures import Spread, percentile
from bench.queue.measure import Result
from bench.queue.targets import Target, targets


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([7.0], 0.01) == 7


def test_a_spread_of_nothing_is_none() -> None:
    assert Spread.of([]) is None
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)


def _result(*, submits: list[float], jobs: list[float], idle: list[float]) -> Result:
    result = Result(jobs_per_s=jobs, idle_ms=[[latency] for latency in idle])
    result.submits_per_s[10] = submits
    return result


def _named(found: list[Target], part: str) -> Target:
    (target,) = [one for one in found if part in one.name]
    return target


def test_ratios_are_taken_round_by_round_against_the_best_peer_of_the_round() -> None:
    results = {
        "easel": _result(submits=[3000, 4000, 900], jobs=[100, 300, 200], idle=[1, 2, 3]),
        "celery": _result(submits=[1, 1, 1], jobs=[100, 100, 100], idle=[2, 2, 2]),
        "pgqueuer": _result(submits=[1000, 500, 300], jobs=[], idle=[]),
        "procrastinate": _result(submits=[500, 1000, 200], jobs=[], idle=[]),
    }
    found = targets(results)
    submits = _named(found, "submits")
    assert (submits.value, submits.rounds, submits.reached) == (3.0, "3.00-4.00", True)
    assert _named(found, "end to end").reached
    idle = _named(found, "idle")
    assert (idle.value, idle.reached) == (1.0, True)


@pytest.mark.parametrize(
    ("recoveries", "verdict"),
    [([0.2, 0.9], "reached"), ([0.2, 1.1], "missed"), ([0.2, None], "missed")],
)
def test_a_job_that_does_not_come_back_misses_the_target(
    recoveries: list[float | None], verdict: str
) -> None:
    found = targets({"easel": Result(recoveries_s=recoveries)})
    assert _named(found, "killed").reached is (verdict == "reached")


def test_what_was_not_measured_is_not_judged() -> None:
    assert targets({"easel": Result(), "celery": Result()}) == []
