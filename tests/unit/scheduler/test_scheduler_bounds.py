"""The bounds that the queue promises hold for the policy, and break where the policy is broken."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from easel_kit.ids import ModelKey
from scheduler.domain.policy import FairQueue, Share, Waiting
from scheduler.domain.tiers import User
from tests.fakes import scheduler_bounds as bounds
from tests.fakes.scheduler_bounds import ReferenceLane

SEEDS = range(4)


class NoWeights(FairQueue):
    """Planted fault: all tiers alike."""

    def admit(self, job: Waiting, share: Share) -> None:
        super().admit(job, Share(share.version, share.priority, 1, share.max_running))


class StrictPriority(FairQueue):
    """Planted fault: the highest tier first, whatever the tags."""

    def admit(self, job: Waiting, share: Share) -> None:
        super().admit(job, Share(share.version, share.priority, 1_000**share.priority, 999))


class TurnByTurn(FairQueue):
    """Planted fault: users take turns, whatever their jobs cost."""

    def _rank(self, user: User, model: ModelKey) -> None:
        super()._rank(user, model)
        line = self._tiers[user.share.priority].lines[model]
        line.put(user.id, (0.0, self._entries + 1))
        self._entries += 1


class LastComeLastServed(FairQueue):
    """Planted fault: a tier that comes back queues behind all that was ever charged."""

    def _enter(self, user: User) -> None:
        tier = self._tiers[user.share.priority]
        if tier.start is None:
            tier.finish = max(one.finish for one in self._tiers.values()) + 100
        super()._enter(user)


class Unlimited(FairQueue):
    """Planted fault: limits are not looked at."""

    def admit(self, job: Waiting, share: Share) -> None:
        super().admit(job, Share(share.version, share.priority, share.weight, 999))


@pytest.mark.parametrize("seed", SEEDS)
def test_shares_follow_the_weights(seed: int) -> None:
    bounds.shares_follow_the_weights(ReferenceLane(), Random(seed), dispatches=6_000)


@pytest.mark.parametrize("affinity", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_two_busy_users_stay_close(seed: int, *, affinity: bool) -> None:
    bounds.two_busy_users_stay_close(
        ReferenceLane(), Random(seed), dispatches=2_000, affinity=affinity
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_quiet_higher_tier_goes_within_two_slots(seed: int) -> None:
    bounds.a_quiet_higher_tier_goes_within_two_slots(ReferenceLane(), Random(seed), arrivals=60)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fresh_user_waits_a_bounded_time(seed: int) -> None:
    bounds.a_fresh_user_waits_a_bounded_time(ReferenceLane(), Random(seed), arrivals=60)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fresh_user_waits_one_round_at_the_median(seed: int) -> None:
    bounds.a_fresh_user_waits_one_round_at_the_median(ReferenceLane(), Random(seed), arrivals=60)


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_runs_more_than_the_limit(seed: int) -> None:
    bounds.nobody_runs_more_than_the_limit(ReferenceLane(), Random(seed), dispatches=2_000)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_loaded_model_starves_another(seed: int) -> None:
    bounds.no_loaded_model_starves_another(ReferenceLane(), Random(seed), rounds=60)


def breaks(check: Callable[..., None], fault: type[FairQueue], **size: int) -> bool:
    """Whether some seed shows the fault."""
    for seed in SEEDS:
        try:
            check(ReferenceLane(fault()), Random(seed), **size)
        except AssertionError:
            return True
    return False


def test_each_bound_can_break() -> None:
    assert breaks(bounds.shares_follow_the_weights, NoWeights, dispatches=600)
    assert breaks(bounds.two_busy_users_stay_close, TurnByTurn, dispatches=600)
    assert breaks(bounds.a_quiet_higher_tier_goes_within_two_slots, LastComeLastServed, arrivals=60)
    assert breaks(bounds.a_fresh_user_waits_a_bounded_time, StrictPriority, arrivals=60)
    assert breaks(bounds.nobody_runs_more_than_the_limit, Unlimited, dispatches=600)


def test_affinity_without_a_bound_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.domain.policy.AFFINITY_LEAD", 1e9)
    assert breaks(bounds.two_busy_users_stay_close, FairQueue, dispatches=600, affinity=True)
    assert breaks(bounds.no_loaded_model_starves_another, FairQueue, rounds=60)
