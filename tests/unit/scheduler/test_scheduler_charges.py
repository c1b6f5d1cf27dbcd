"""What users are charged, how their jobs move, and what plans change: the policy in examples."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_kit.ids import JobId, ModelKey, UserId
from scheduler.domain.cost import MAX_OVERRUN, actual_cost, averaged
from scheduler.domain.policy import FairQueue, Share, Waiting
from scheduler.domain.ranking import Ranking

M = ModelKey("m")
FREE = Share(1, 0, 1, 9)
_orders = count(1)


def job(user: str, cost_ms: int = 100, *, share: Share = FREE, into: FairQueue) -> Waiting:
    order = next(_orders)
    made = Waiting(JobId(f"job_{order}"), UserId(user), M, cost_ms, order)
    into.admit(made, share)
    return made


def drawn(queue: FairQueue) -> Waiting:
    found = queue.claim([M])
    assert found is not None
    return found


def test_a_success_costs_its_time_over_the_lanes_pace() -> None:
    assert actual_cost(100, took_ms=300, done=0, ms_per_cost=2.0) == 150
    assert actual_cost(100, took_ms=9_999, done=0, ms_per_cost=2.0) == 100 * MAX_OVERRUN
    assert actual_cost(100, took_ms=300, done=0, ms_per_cost=None) == 100
    assert actual_cost(100, took_ms=0, done=0, ms_per_cost=2.0) == 100


def test_any_other_end_costs_the_steps_that_were_done() -> None:
    assert actual_cost(100, took_ms=None, done=0.3, ms_per_cost=2.0) == pytest.approx(30)


def test_the_first_value_is_the_average_and_later_ones_move_it() -> None:
    assert averaged(None, 4.0) == 4.0
    assert averaged(4.0, 14.0) == pytest.approx(5.0)


def test_whoever_stops_early_is_served_sooner_again() -> None:
    queue = FairQueue()
    for user in ("stops", "draws"):
        for _ in range(3):
            job(user, into=queue)
    queue.requeue(drawn(queue).job_id, done=0.1)
    queue.remove(drawn(queue).job_id)
    assert [drawn(queue).user_id for _ in range(2)] == ["stops", "draws"]


def test_a_job_that_took_longer_puts_its_user_back() -> None:
    queue = FairQueue()
    for user in ("slow", "usual"):
        for _ in range(5):
            job(user, into=queue)
    queue.remove(drawn(queue).job_id, took_ms=100)  # slow's: the lane's pace
    queue.remove(drawn(queue).job_id, took_ms=100)
    slow = drawn(queue)
    assert slow.user_id == "slow"
    queue.remove(slow.job_id, took_ms=350)
    assert [drawn(queue).user_id for _ in range(3)] == ["usual", "usual", "usual"]


def test_a_refund_gives_no_more_credit_than_a_newcomer_has() -> None:
    queue = FairQueue()
    for _ in range(20):
        job("steady", into=queue)
    for _ in range(3):
        job("stops", 5_000, into=queue)
    assert drawn(queue).user_id == "steady"
    stopped = drawn(queue)
    for _ in range(12):
        queue.remove(drawn(queue).job_id)
    queue.remove(stopped.job_id, done=0.0)  # by then others were served for long
    for _ in range(3):
        job("fresh", into=queue)
    got = [drawn(queue).user_id for _ in range(3)]
    assert sorted(got) == ["fresh", "steady", "stops"]


def test_a_success_after_its_job_was_put_back_is_charged() -> None:
    queue = FairQueue()
    for user in ("late", "other"):
        for _ in range(3):
            job(user, into=queue)
    attempt = drawn(queue)
    queue.requeue(attempt.job_id, done=0.0)
    queue.remove(attempt.job_id, took_ms=0)
    assert [drawn(queue).user_id for _ in range(2)] == ["other", "late"]


def test_a_job_in_front_comes_first_and_one_that_runs_when_it_is_back() -> None:
    queue = FairQueue()
    jobs = [job("u", into=queue) for _ in range(3)]
    running = drawn(queue)
    queue.prepend({jobs[2].job_id: -1, running.job_id: -2, JobId("unknown"): -3})
    queue.requeue(running.job_id)
    assert [drawn(queue).job_id for _ in range(3)] == [
        jobs[0].job_id,
        jobs[2].job_id,
        jobs[1].job_id,
    ]


def test_a_job_for_later_is_in_no_line_until_its_release() -> None:
    queue = FairQueue()
    job("u", into=queue)
    paused = drawn(queue)
    queue.requeue(paused.job_id, later=True)
    assert queue.claim([M]) is None
    queue.release(paused.job_id)
    assert drawn(queue) == paused
    queue.requeue(paused.job_id, later=True)
    queue.remove(paused.job_id)
    assert queue.waiting() == []


def test_newer_plans_move_waiting_jobs_and_older_ones_do_not() -> None:
    queue = FairQueue()
    job("free", into=queue)
    mine = job("me", into=queue)
    queue.entitle(UserId("me"), Share(3, 100, 16, 0))
    queue.entitle(UserId("me"), Share(2, 0, 1, 9))
    assert drawn(queue).user_id == "free"
    assert queue.claim([M]) is None  # none may run
    queue.entitle(UserId("me"), Share(3, 100, 16, 1))
    assert drawn(queue) == mine
    queue.entitle(UserId("me"), Share(4, 0, 1, 1))
    queue.remove(mine.job_id, done=0.5)  # charged where it was served
    assert queue.priority(UserId("me")) == 0


def test_attempts_found_running_are_counted_and_charged_at_their_end() -> None:
    queue = FairQueue()
    one = Share(1, 0, 1, 1)
    lost = [Waiting(JobId(f"lost_{n}"), UserId("u"), M, 100, n) for n in range(3)]
    assert queue.restore(lost[0], one)
    assert not queue.restore(lost[1], one)
    assert queue.restore(lost[2], one, forced=True)
    assert queue.running(UserId("u")) == 2
    for found in (lost[0], lost[2]):
        queue.remove(found.job_id)
    for user in ("u", "v", "v"):
        job(user, into=queue)
    assert [drawn(queue).user_id for _ in range(3)] == ["v", "v", "u"]  # it has had its two


@given(
    moves=st.lists(
        st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 99))), max_size=200
    )
)
def test_a_ranking_is_a_sorted_dictionary(moves: list[tuple[int, int | None]]) -> None:
    ranking: Ranking[int, tuple[int, int]] = Ranking()
    plain: dict[int, tuple[int, int]] = {}
    for member, key in moves:
        if key is None:
            ranking.drop(member)
            plain.pop(member, None)
        else:
            ranking.put(member, (key, member))
            plain[member] = (key, member)
        lowest = min(((key, member) for member, key in plain.items()), default=None)
        assert ranking.lowest() == lowest
        assert (set(ranking), len(ranking)) == (set(plain), len(plain))
        assert all(member in ranking for member in plain)
