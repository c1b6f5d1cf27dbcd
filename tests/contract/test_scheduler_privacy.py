"""What is kept of a person, read out and removed: in memory and in Postgres, the same."""

from __future__ import annotations

from dataclasses import replace

from easel_kit.erasure import hash_of
from easel_kit.ids import UserId, WorkerId, new_attempt_id, new_job_id
from scheduler.domain.job import Cursor, Job, JobState, Resolution
from scheduler.domain.lease import Claim, Outcome
from scheduler.domain.privacy import Erasure
from scheduler.domain.selection import Filter, Mark, mark
from tests.fakes.scheduler_contract import ALICE, BOB, OUT_OF_MEMORY, PLAN, Store, image

MANY = replace(PLAN, max_waiting=100)


async def every_job(store: Store, user: UserId, *, page: int) -> list[Job]:
    found: list[Job] = []
    after: Mark | None = None
    while some := await store.privacy.jobs(user, after=after, limit=page):
        assert len(some) <= page
        found += some
        after = mark(some[-1])
    return found


async def live(store: Store) -> list[Job]:
    """Jobs of Alice in all states, some of them out of sight; the last one waits."""
    jobs = await store.submit(*[new_job_id() for _ in range(7)], plan=MANY)
    won, failed, gone, hidden, stopping, runs, _ = jobs
    await store.settle(await store.claim(won), Outcome.SUCCEEDED, images=(image(), image()))
    await store.settle(await store.claim(failed), Outcome.REFUSED, error=OUT_OF_MEMORY)
    await store.cancel(gone.id, hidden.id)
    await store.own_line.hide(ALICE, Filter(states=frozenset([JobState.CANCELLED])))
    await store.claim(stopping)
    await store.cancel(stopping.id)
    await store.claim(runs)
    return jobs


async def end(store: Store, jobs: list[Job]) -> None:
    """Ends what is open of those jobs."""
    await store.cancel(*[job.id for job in jobs])
    for job in jobs:
        attempt = await store.attempts.open([job.id])
        if attempt:
            await store.settle(await store.claim(job, number=2), Outcome.STOPPED)


async def test_jobs_are_read_oldest_first_those_out_of_sight_too(store: Store) -> None:
    jobs = await live(store)
    await store.submit(user=BOB)
    later = await store.submit(plan=MANY)
    expected = [job.id for job in [*jobs, *later]]
    for page in (1, 3, 9):
        assert [job.id for job in await every_job(store, ALICE, page=page)] == expected
    found = await every_job(store, ALICE, page=100)
    assert [job.is_hidden for job in found] == [False, False, True, True, *[False] * 4]
    assert len(found[0].images) == 2
    assert await every_job(store, UserId("stranger"), page=3) == []


async def test_users_are_known_by_their_hashes(store: Store) -> None:
    await store.submit()
    await store.plans.entitle(BOB, PLAN)  # has a plan and never submitted
    asked = [hash_of(one) for one in (ALICE, BOB, UserId("stranger"), ALICE)]
    assert sorted(await store.privacy.users(asked)) == [ALICE, BOB]
    assert await store.privacy.users(asked[2:3]) == []


async def test_a_user_with_an_open_job_is_left_as_they_are(store: Store) -> None:
    jobs = await live(store)
    told = await store.events()
    before = await every_job(store, ALICE, page=100)
    assert await store.privacy.erase(ALICE) is Erasure.BUSY
    assert await every_job(store, ALICE, page=100) == before
    assert await store.events() == told
    await end(store, jobs)
    assert await store.privacy.erase(ALICE) is Erasure.DONE


async def test_nothing_is_left_of_an_erased_user_and_all_of_others(store: Store) -> None:
    jobs = await live(store)
    (bobs,) = await store.submit(user=BOB)
    at = jobs[0].queued_at
    claim = Claim(new_attempt_id(), jobs[0].id, ALICE, WorkerId("late"), 3, at)
    assert await store.attempts.record([claim]) == [claim.attempt_id]
    await end(store, jobs)
    assert await store.privacy.erase(ALICE) is Erasure.DONE
    assert await store.privacy.erase(ALICE) is Erasure.ABSENT
    assert await store.privacy.users([hash_of(ALICE)]) == []
    assert await every_job(store, ALICE, page=9) == []
    assert await store.attempts.claims([claim.attempt_id]) == []
    assert [job_id for job_id, _ in await store.events()] == [bobs.id]
    assert [job.id for job in await every_job(store, BOB, page=9)] == [bobs.id]
    assert await store.privacy.erase(BOB) is Erasure.BUSY


async def test_a_plan_alone_is_erased(store: Store) -> None:
    await store.plans.entitle(ALICE, PLAN)
    assert await store.privacy.erase(ALICE) is Erasure.DONE
    assert await store.privacy.erase(ALICE) is Erasure.ABSENT


async def test_late_words_on_erased_jobs_change_nothing(store: Store) -> None:
    (job,) = await store.submit()
    claim = await store.claim(job)
    await store.settle(claim, Outcome.SUCCEEDED, images=(image(),))
    await store.privacy.erase(ALICE)
    assert await store.attempts.record([claim]) == [claim.attempt_id]
    assert await store.settle(claim, Outcome.LOST) is None
    assert await store.jobs.resolve(job.id) == Resolution(None)
    assert await every_job(store, ALICE, page=9) == []
    assert await store.privacy.erase(ALICE) is Erasure.ABSENT


async def test_events_of_others_are_told_from_any_cursor(store: Store) -> None:
    (alices,) = await store.submit()
    (first,) = await store.submit(user=BOB)
    await store.cancel(alices.id)
    (second,) = await store.submit(user=BOB)
    told = await store.read(Cursor())
    assert await store.privacy.erase(ALICE) is Erasure.DONE
    for place, before in enumerate([Cursor(), *(event.cursor for event in told)]):
        left = [event for event in told[place:] if event.user_id == BOB]
        assert await store.read(before) == left
    await store.cancel(first.id, user=BOB)
    events = await store.read(told[-1].cursor)
    assert [event.job_id for event in events] == [first.id]
    assert events[0].cursor > told[-1].cursor
    assert second.id != first.id


async def test_an_erased_user_who_comes_again_is_a_new_one(store: Store) -> None:
    (job,) = await store.submit(plan=replace(PLAN, version=9))
    await store.cancel(job.id)
    await store.privacy.erase(ALICE)
    (again,) = await store.submit(job.id)  # an older plan, an id of before
    assert again.place > job.place
    assert await store.privacy.erase(ALICE) is Erasure.BUSY


async def test_retention_leaves_the_user_by_whom_they_are_found(store: Store) -> None:
    (job,) = await store.submit()
    await store.cancel(job.id)
    await store.age(100)
    assert await store.feed.prune(older_than_s=50) == 2
    assert await store.history.remove(older_than_s=50) == 1
    assert await store.privacy.users([hash_of(ALICE)]) == [ALICE]
    assert await store.privacy.erase(ALICE) is Erasure.DONE
