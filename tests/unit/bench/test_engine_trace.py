"""What the engine's benchmark asks for, and what may be drawn together."""

import json
import random
from collections import Counter
from itertools import pairwise

import pytest

from bench.engine.batching import groups, next_batch
from bench.engine.trace import (
    GUIDANCES,
    SAMPLERS,
    STEPS,
    Arrival,
    Request,
    burst,
    from_wire,
    requests,
    stream,
    to_wire,
)


def _request(steps: int = 4, seed: int = 0) -> Request:
    return Request("tiny", "a red star", steps, 2.5, "ddim", seed)


def test_a_mixed_trace_has_every_number_of_steps_equally_often() -> None:
    asked = requests("mixed", "tiny", 400, random.Random(1))
    assert Counter(one.steps for one in asked) == dict.fromkeys(STEPS, 100)
    assert {one.guidance for one in asked} == set(GUIDANCES)
    assert {one.sampler for one in asked} == set(SAMPLERS)
    assert len({one.settings for one in asked}) == 48
    assert len({one.seed for one in asked}) == 400


def test_a_uniform_trace_differs_in_prompts_and_seeds_alone() -> None:
    asked = requests("uniform", "tiny", 50, random.Random(1))
    assert len({one.settings for one in asked}) == 1
    assert len({one.seed for one in asked}) == 50
    assert len({one.prompt for one in asked}) > 10


def test_the_same_seed_asks_the_same() -> None:
    one, other = (requests("mixed", "tiny", 20, random.Random(5)) for _ in range(2))
    assert one == other
    assert one != requests("mixed", "tiny", 20, random.Random(6))


def test_a_stream_comes_at_the_rate_with_independent_gaps() -> None:
    arrivals = stream([_request()] * 4000, 8.0, random.Random(2))
    gaps_s = [b.at_s - a.at_s for a, b in pairwise(arrivals)]
    mean_s = sum(gaps_s) / len(gaps_s)
    spread_s = (sum((gap_s - mean_s) ** 2 for gap_s in gaps_s) / len(gaps_s)) ** 0.5
    assert arrivals[0].at_s == 0
    assert mean_s == pytest.approx(1 / 8, rel=0.05)
    assert spread_s == pytest.approx(mean_s, rel=0.1)  # as of an exponential distribution


def test_arrivals_cross_the_wire() -> None:
    arrivals = stream(requests("mixed", "tiny", 7, random.Random(3)), 2.0, random.Random(3))
    assert from_wire(json.loads(json.dumps(to_wire(arrivals)))) == list(arrivals)


def test_a_burst_comes_at_once() -> None:
    assert [arrival.at_s for arrival in burst([_request()] * 3)] == [0, 0, 0]


def test_a_full_batch_is_drawn_at_once_and_without_strangers() -> None:
    waiting = [Arrival(n / 100, _request(steps=STEPS[n % 2], seed=n)) for n in range(8)]
    chosen, until_s = next_batch(waiting, 0.07, most=3, window_s=1.0)
    assert (chosen, until_s) == ([0, 2, 4], 0.07)


def test_a_batch_waits_for_more_until_its_oldest_has_waited_long_enough() -> None:
    waiting = [Arrival(1.0, _request()), Arrival(1.01, _request(steps=50))]
    chosen, until_s = next_batch(waiting, 1.01, most=8, window_s=0.02)
    assert chosen == [0]
    assert until_s == pytest.approx(1.02)


def test_one_at_a_time_never_waits() -> None:
    waiting = [Arrival(0.5, _request()), Arrival(0.6, _request())]
    assert next_batch(waiting, 0.7, most=1, window_s=9.0) == ([0], 0.7)


def test_groups_keep_all_and_the_order() -> None:
    asked = [_request(steps=steps) for steps in (4, 50, 4, 12, 50)]
    assert groups(asked, lambda one: one.settings) == [[0, 2], [1, 4], [3]]
