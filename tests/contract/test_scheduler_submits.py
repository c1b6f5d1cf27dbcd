"""Groups of submits: each whole or not at all by itself, and all as if one after another."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easel_kit.errors import Conflict, DomainError, InvalidState, NotFound, RateLimited
from easel_kit.ids import JobId, UserId, new_job_id
from scheduler.domain.job import Entitlements, EventType, NewJob, Submission
from scheduler.domain.line import Accepted
from tests.fakes.scheduler_contract import ALICE, BOB, PICTURE, PLAN, Store

CAROL = UserId("carol")
_numbers = count()


def wanted(
    user: UserId, *ids: JobId, plan: Entitlements = PLAN, prepend: bool = False
) -> Submission:
    """A submission of one new job unless ids are given."""
    jobs = tuple(NewJob(one, PICTURE, 100) for one in ids or (new_job_id(),))
    return Submission(user, plan, jobs, "00-trace", prepend=prepend)


def several(user: UserId, jobs: int, plan: Entitlements = PLAN) -> Submission:
    return wanted(user, *[new_job_id() for _ in range(jobs)], plan=plan)


def accepted(answer: Accepted | DomainError) -> Accepted:
    assert isinstance(answer, Accepted), answer
    return answer


async def test_a_refusal_harms_no_neighbour(store: Store) -> None:
    (known,) = await store.submit(user=BOB)
    buried = new_job_id()
    await store.jobs.resolve(buried)
    other = Submission(BOB, PLAN, (NewJob(known.id, replace(PICTURE, seed=8), 100),))
    first, last = wanted(ALICE), wanted(CAROL)
    answers = await store.jobs.submit(
        [
            first,
            several(CAROL, 6),
            wanted(ALICE, new_job_id(), known.id),
            other,
            wanted(ALICE, buried),
            wanted(BOB, known.id),
            last,
        ]
    )
    kinds = [Accepted, RateLimited, NotFound, Conflict, InvalidState, Accepted, Accepted]
    assert [type(one) for one in answers] == kinds
    assert [job.id for job in accepted(answers[0]).jobs] == [first.jobs[0].id]
    assert accepted(answers[5]).fresh == frozenset()
    assert accepted(answers[6]).fresh == {last.jobs[0].id}
    ids = [known.id, first.jobs[0].id, last.jobs[0].id]
    assert await store.events() == [(one, EventType.QUEUED) for one in ids]
    for user in (ALICE, BOB, CAROL):  # one each is open: four more fit, the fifth does not
        full, over = await store.jobs.submit([several(user, 4), wanted(user)])
        accepted(full)
        assert isinstance(over, RateLimited)
        assert (over.limit, over.current, over.requested) == (5, 5, 1)


async def test_each_sees_what_those_before_it_took(store: Store) -> None:
    one = wanted(ALICE)
    answers = await store.jobs.submit([several(ALICE, 3), one, several(ALICE, 2), one])
    assert [type(answer) for answer in answers] == [Accepted, Accepted, RateLimited, Accepted]
    assert accepted(answers[1]).fresh == {one.jobs[0].id}
    assert accepted(answers[3]).fresh == frozenset()
    assert accepted(answers[3]).jobs == accepted(answers[1]).jobs
    refused = answers[2]
    assert isinstance(refused, RateLimited)
    assert (refused.limit, refused.current, refused.requested) == (5, 4, 2)


async def test_an_id_of_two_users_in_one_group_is_the_first_ones(store: Store) -> None:
    job_id = new_job_id()
    first, second = await store.jobs.submit([wanted(BOB, job_id), wanted(ALICE, job_id)])
    accepted(first)
    assert isinstance(second, NotFound)


async def test_the_newest_plan_of_a_group_holds_for_all_of_it(store: Store) -> None:
    newer = replace(PLAN, version=2, max_running=1, max_waiting=1)
    answers = await store.jobs.submit([several(ALICE, 2, plan=newer), wanted(ALICE)])
    assert accepted(answers[0]).share.version == 2
    assert isinstance(answers[1], RateLimited)


async def test_places_follow_the_order_of_the_group(store: Store) -> None:
    answers = await store.jobs.submit([several(BOB, 2), several(ALICE, 2), several(BOB, 1)])
    places = [job.place for answer in answers for job in accepted(answer).jobs]
    assert places == sorted(places)


async def test_of_two_prepends_the_later_is_first(store: Store) -> None:
    jobs = [new_job_id() for _ in range(4)]
    answers = await store.jobs.submit(
        [
            wanted(ALICE, jobs[0], jobs[1], prepend=True),
            wanted(ALICE, jobs[2]),
            wanted(ALICE, jobs[3], prepend=True),
        ]
    )
    found = [job for answer in answers for job in accepted(answer).jobs]
    in_line = sorted(found, key=lambda job: job.front or job.place)
    assert [job.id for job in in_line] == [jobs[3], jobs[0], jobs[1], jobs[2]]


async def test_the_same_submit_from_all_sides_is_accepted_once(store: Store) -> None:
    same = several(ALICE, 2)
    answers = await asyncio.gather(*(store.jobs.submit([same]) for _ in range(6)))
    fresh = [one for (answer,) in answers for one in accepted(answer).fresh]
    assert sorted(fresh) == sorted(job.id for job in same.jobs)
    assert len(await store.events()) == 2


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    groups=st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=5),
        min_size=2,
        max_size=6,
    ),
    twice=st.booleans(),
)
async def test_groups_at_once_are_some_order_of_their_submits(
    store: Store, groups: list[list[tuple[int, int]]], *, twice: bool
) -> None:
    """For one user no order refuses what would still fit in the end, and none exceeds the limit.

    So the answers are those of an order exactly where what was accepted fits and what was refused
    no longer would.
    """
    users = [UserId(f"user-{next(_numbers)}") for _ in range(3)]
    asked = [[several(users[user], size) for user, size in group] for group in groups]
    if twice:
        asked.append(asked[0])
    answers = await asyncio.gather(*(store.jobs.submit(group) for group in asked))
    taken: Counter[UserId] = Counter()
    refused: list[Submission] = []
    for group, found in zip(asked, answers, strict=True):
        for submission, answer in zip(group, found, strict=True):
            if isinstance(answer, Accepted):
                assert len(answer.fresh) in {0, len(submission.jobs)}
                taken[submission.user_id] += len(answer.fresh)
            else:
                assert isinstance(answer, RateLimited)
                refused.append(submission)
    assert all(number <= PLAN.max_open for number in taken.values())
    assert all(
        taken[submission.user_id] + len(submission.jobs) > PLAN.max_open for submission in refused
    )
