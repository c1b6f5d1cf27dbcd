"""The bounds that the queue promises hold for its scripts, over fewer dispatches than in Python."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from tests.fakes import scheduler_bounds as bounds
from tests.fakes.scheduler_lane import RedisLane

SEEDS = range(2)


@pytest.fixture
def lane(redis_url: str) -> Iterator[RedisLane]:
    found = RedisLane(redis_url)
    yield found
    found.close()


def test_shares_follow_the_weights(lane: RedisLane) -> None:
    bounds.shares_follow_the_weights(lane, Random(0), dispatches=420)


@pytest.mark.parametrize("affinity", [False, True])
def test_two_busy_users_stay_close(lane: RedisLane, *, affinity: bool) -> None:
    bounds.two_busy_users_stay_close(lane, Random(0), dispatches=300, affinity=affinity)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quiet_higher_tier_goes_within_two_slots(lane: RedisLane, seed: int) -> None:
    bounds.a_quiet_higher_tier_goes_within_two_slots(lane, Random(seed), arrivals=10)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fresh_user_waits_a_bounded_time(lane: RedisLane, seed: int) -> None:
    bounds.a_fresh_user_waits_a_bounded_time(lane, Random(seed), arrivals=4)


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_runs_more_than_the_limit(lane: RedisLane, seed: int) -> None:
    bounds.nobody_runs_more_than_the_limit(lane, Random(seed), dispatches=200)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_loaded_model_starves_another(lane: RedisLane, seed: int) -> None:
    bounds.no_loaded_model_starves_another(lane, Random(seed), rounds=8)
