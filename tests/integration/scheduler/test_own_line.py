"""What users do to their own line, over gRPC on a real database and a real Redis."""

from __future__ import annotations

import asyncio

import pytest

from easel.scheduler.v1 import jobs_pb2
from easel.scheduler.v1 import lease_pb2 as lease
from easel_kit.errors import Conflict, InvalidInput, InvalidState, NotFound, RateLimited
from easel_kit.ids import new_job_id
from tests.fakes.scheduler_stack import (
    ALICE,
    BOB,
    SchedulerStack,
    entitlements,
    generation,
    submission,
)

QUEUED, RUNNING = jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING
SUCCEEDED, CANCELLED = jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_CANCELLED
FAILED = jobs_pb2.JOB_STATE_FAILED


class Alice:
    """A user's calls."""

    def __init__(self, stack: SchedulerStack, user: str = ALICE) -> None:
        self.stack = stack
        self.user = user

    async def submit(
        self, count: int = 1, *, plan: jobs_pb2.Entitlements | None = None, **more: object
    ) -> list[jobs_pb2.Job]:
        return await self.submits(*[submission() for _ in range(count)], plan=plan, **more)

    async def submits(
        self,
        *jobs: jobs_pb2.JobSubmission,
        plan: jobs_pb2.Entitlements | None = None,
        **more: object,
    ) -> list[jobs_pb2.Job]:
        request = jobs_pb2.SubmitJobsRequest(
            user_id=self.user,
            entitlements=plan or entitlements(),
            jobs=jobs,
            **more,  # type: ignore[arg-type]
        )
        return list((await self.stack.jobs.SubmitJobs(request)).jobs)

    async def lists(self, **asked: object) -> list[str]:
        request = jobs_pb2.ListJobsRequest(user_id=self.user, **asked)  # type: ignore[arg-type]
        return [job.id for job in (await self.stack.jobs.ListJobs(request)).jobs]

    async def counts(self, *batches: str) -> dict[int, int]:
        request = jobs_pb2.CountJobsRequest(user_id=self.user, batch_ids=batches)
        found = (await self.stack.jobs.CountJobs(request)).counts
        assert len(found) == 5
        return {one.state: one.jobs for one in found if one.jobs}

    async def cancels(self, **asked: object) -> jobs_pb2.CancelJobsResponse:
        request = jobs_pb2.CancelJobsRequest(user_id=self.user, **asked)  # type: ignore[arg-type]
        answer: jobs_pb2.CancelJobsResponse = await self.stack.jobs.CancelJobs(request)
        return answer

    async def prepends(self, *job_ids: str) -> list[str]:
        request = jobs_pb2.PrependJobsRequest(user_id=self.user, job_ids=job_ids)
        return list((await self.stack.jobs.PrependJobs(request)).moved_job_ids)

    async def prunes(self, **asked: object) -> int:
        request = jobs_pb2.PruneJobsRequest(user_id=self.user, **asked)  # type: ignore[arg-type]
        return int((await self.stack.jobs.PruneJobs(request)).pruned)

    async def clears(self) -> tuple[int, int]:
        answer = await self.stack.jobs.ClearJobs(jobs_pb2.ClearJobsRequest(user_id=self.user))
        return answer.cancelled, answer.pruned

    async def changes_to(self, plan: jobs_pb2.Entitlements) -> jobs_pb2.Entitlements:
        request = jobs_pb2.SetEntitlementsRequest(user_id=self.user, entitlements=plan)
        found: jobs_pb2.Entitlements = (await self.stack.jobs.SetEntitlements(request)).entitlements
        return found


@pytest.fixture
def alice(stack: SchedulerStack) -> Alice:
    """Of the scheduler that runs."""
    return Alice(stack)


def ids(jobs: list[jobs_pb2.Job]) -> list[str]:
    return [job.id for job in jobs]


# --- batches


async def evaluations(stack: SchedulerStack) -> int:
    async with stack.redis as redis:
        found = await redis.info("commandstats")
    return sum(int(one["calls"]) for name, one in found.items() if name.startswith("cmdstat_eval"))


async def test_the_largest_batch_is_one_transaction_and_few_calls(
    idle_stack: SchedulerStack,
) -> None:
    prompt = "\N{ARTIST PALETTE}" * 2_000  # four bytes each
    picture = generation(prompt=prompt)
    picture.negative_prompt = prompt
    wanted = [
        jobs_pb2.JobSubmission(job_id=new_job_id(), generation=picture, cost_ms=10)
        for _ in range(500)
    ]
    async with idle_stack.running(expire_every_s=60, reconcile_every_s=600, position_every_s=60):
        alice = Alice(idle_stack)
        await alice.submit()  # by now the scripts are known
        await alice.clears()
        before = await evaluations(idle_stack)
        jobs = await alice.submits(*wanted, plan=entitlements(waiting=490), batch_id="b-1")
        assert await evaluations(idle_stack) - before == 6  # 200 jobs a call, to admit and to look
        assert [job.id for job in jobs] == [job.job_id for job in wanted]
        assert [job.position for job in jobs] == list(range(1, 501))
        assert {job.batch_id for job in jobs} == {"b-1"}
        batch = "SELECT count(DISTINCT transaction_id) FROM events WHERE job_id = ANY($1)"
        assert await idle_stack.row(batch, ids(jobs)) == 1
        assert await alice.counts("b-1") == {QUEUED: 500}
        assert len(await alice.lists(batch_ids=["b-1"], page_size=100)) == 100


async def test_a_batch_over_the_limit_is_refused_whole(alice: Alice) -> None:
    plan = entitlements(running=1, waiting=9)
    await alice.submit(4, plan=plan)
    with pytest.raises(RateLimited) as refused:
        await alice.submit(7, plan=plan, batch_id="b-2")
    told = refused.value
    assert (told.requested, told.limit, told.current) == (7, 10, 4)
    assert await alice.counts() == {QUEUED: 4}
    assert await alice.stack.row("SELECT open FROM open_jobs") == 4
    await alice.submit(6, plan=plan, batch_id="b-2")


# --- lists and counts


async def test_lists_are_filtered_and_counted(alice: Alice) -> None:
    old = await alice.submit(3, batch_id="one")
    new = await alice.submits(submission(model_key="other"), batch_id="two")
    await Alice(alice.stack, BOB).submit(2, batch_id="one")
    await alice.stack.cancel(old[1].id)
    assert await alice.lists() == ids(new + old[::-1])
    assert await alice.lists(batch_ids=["one"]) == ids(old[::-1])
    assert await alice.lists(model_keys=["other"]) == ids(new)
    assert await alice.lists(states=[CANCELLED, FAILED]) == [old[1].id]
    assert await alice.lists(states=[QUEUED], batch_ids=["one"]) == [old[2].id, old[0].id]
    cut = new[0].timeline.queued_at
    assert await alice.lists(queued_before=cut) == ids(old[::-1])
    assert await alice.lists(queued_from=cut) == ids(new)
    assert await alice.counts() == {QUEUED: 3, CANCELLED: 1}
    assert await alice.counts("one") == {QUEUED: 2, CANCELLED: 1}
    assert await alice.counts("none") == {}
    first = await alice.stack.jobs.ListJobs(jobs_pb2.ListJobsRequest(user_id=ALICE, page_size=2))
    await alice.submit()  # comes in while one pages
    rest = await alice.lists(page_token=first.next_page_token, page_size=3)
    assert ids(list(first.jobs)) + rest == ids(new + old[::-1])
    assert [job.position for job in first.jobs] == [5, 3]  # bob's stand between


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"page_size": 101}, "page_size"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "7"}, "page_token"),
        ({"page_token": "9" * 30 + "-1"}, "page_token"),
        ({"states": [77]}, "states.0"),
        ({"batch_ids": ["no spaces"]}, "batch_ids.0"),
        ({"batch_ids": ["b"] * 101}, "batch_ids"),
        ({"model_keys": ["m", "no spaces"]}, "model_keys.1"),
        ({"queued_from": {"seconds": -1}}, "queued_from.seconds"),
        ({"queued_before": {"seconds": 2**62}}, "queued_before.seconds"),
        ({"queued_before": {"seconds": 1, "nanos": -1}}, "queued_before.nanos"),
    ],
)
async def test_what_a_list_cannot_be_asked_is_named(
    alice: Alice, asked: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await alice.lists(**asked)
    assert refused.value.field == field


async def test_operators_see_the_line_by_tier(alice: Alice) -> None:
    paid = entitlements(priority=100, weight=16, running=1, waiting=50)
    await alice.submit(3)
    await Alice(alice.stack, BOB).submit(2, plan=paid)
    async with alice.stack.worker(slots=3) as worker:
        for _ in range(3):
            await worker.is_assigned()
        await alice.stack.recorded(3)
        seen = await alice.stack.jobs.GetQueue(jobs_pb2.GetQueueRequest())
        assert (seen.workers, seen.slots) == (1, 3)
    assert [(tier.priority, tier.weight) for tier in seen.tiers] == [(100, 16), (0, 1)]
    assert [(tier.waiting, tier.running, tier.waiting_users) for tier in seen.tiers] == [
        (1, 1, 1),
        (1, 2, 1),
    ]
    assert (seen.waiting, seen.running, seen.waiting_cost_ms) == (2, 3, 200)
    assert seen.oldest_waiting_s > 0
    again = await alice.stack.jobs.GetQueue(jobs_pb2.GetQueueRequest())
    assert again == seen  # the database counts once a second, however many look


# --- cancels


async def test_many_are_cancelled_at_once(alice: Alice) -> None:
    (foreign,) = await Alice(alice.stack, BOB).submit()
    async with alice.stack.worker() as worker:
        await worker.finishes(await worker.is_assigned())  # bob's
        await worker.takes(1)
        ran, *waiting = await alice.submit(4, batch_id="one")
        assigned = await worker.is_assigned()
        await alice.stack.recorded(2)
        named = [ran.id, waiting[0].id, foreign.id]
        answer = await alice.cancels(job_ids=named, waiting_only=True)
        assert list(answer.cancelled_job_ids) == [waiting[0].id]
        assert (list(answer.running_job_ids), list(answer.stopping_job_ids)) == ([ran.id], [])
        assert list(answer.unknown_job_ids) == [foreign.id]
        answer = await alice.cancels()
        assert sorted(answer.cancelled_job_ids) == sorted(ids(waiting[1:]))
        assert list(answer.stopping_job_ids) == [ran.id]
        assert (await worker.hears("cancel")).attempt_id == assigned.attempt_id
        assert (await worker.stops(assigned)).accepted
        answer = await alice.cancels(job_ids=named)
        assert list(answer.ended_job_ids) == sorted([ran.id, waiting[0].id])
        assert not answer.cancelled_job_ids
        await worker.takes(1)
        await worker.hears_nothing()
    assert await alice.counts("one") == {CANCELLED: 4}
    assert await alice.stack.row("SELECT sum(open) FROM open_jobs") == 0


async def test_a_batch_is_cancelled_and_leaves_the_others(alice: Alice) -> None:
    gone = await alice.submit(3, batch_id="one")
    (left,) = await alice.submit(1, batch_id="two")
    answer = await alice.cancels(batch_ids=["one", "none"])
    assert sorted(answer.cancelled_job_ids) == sorted(ids(gone))
    async with alice.stack.worker() as worker:
        assert (await worker.is_assigned()).job_id == left.id


@pytest.mark.parametrize("named", [{"job_ids": ["x"]}, {"batch_ids": [""]}])
async def test_what_cannot_be_cancelled_is_named(alice: Alice, named: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidInput, match=r"_ids\.0"):
        await alice.cancels(**named)
    with pytest.raises(InvalidInput, match="job_ids"):
        await alice.cancels(job_ids=[new_job_id()] * 1_001)


# --- again


async def failed(alice: Alice) -> jobs_pb2.Job:
    picture = generation(prompt="too difficult", steps=7)
    (job,) = await alice.submits(
        jobs_pb2.JobSubmission(job_id=new_job_id(), generation=picture, cost_ms=77)
    )
    async with alice.stack.worker() as worker:
        await worker.fails(await worker.is_assigned(), lease.FAILURE_KIND_CALLER)
    assert (await alice.stack.get(job.id)).state == FAILED
    return job


async def test_an_ended_job_is_repeated_with_what_it_asked_for(alice: Alice) -> None:
    job = await failed(alice)
    wanted = jobs_pb2.JobSubmission(job_id=new_job_id(), retry_of=job.id)
    (again,) = await alice.submits(wanted)
    assert (again.id, again.retry_of) == (wanted.job_id, job.id)
    assert (again.state, again.generation) == (QUEUED, job.generation)
    assert (await alice.submits(wanted))[0].id == again.id
    assert await alice.stack.row("SELECT cost_ms FROM jobs WHERE id = $1", again.id) == 77
    other = generation(prompt="easier")
    changed = jobs_pb2.JobSubmission(
        job_id=new_job_id(), retry_of=job.id, generation=other, cost_ms=5
    )
    (easier,) = await alice.submits(changed)
    assert (easier.retry_of, easier.generation.prompt) == (job.id, "easier")
    assert (await alice.stack.get(job.id)).retry_of == ""
    # its submit may come once more when what it repeats is out of sight
    await alice.prunes()
    assert (await alice.submits(wanted))[0].id == again.id


async def test_what_cannot_be_repeated_is_refused(alice: Alice) -> None:
    job = await failed(alice)
    (open_job,) = await alice.submit()

    async def repeat(of: str, by: Alice = alice, job_id: str = "", **plan: int) -> None:
        wanted = jobs_pb2.JobSubmission(job_id=job_id or new_job_id(), retry_of=of)
        await by.submits(wanted, plan=entitlements(**plan))

    with pytest.raises(InvalidState, match="still queued"):
        await repeat(open_job.id)
    with pytest.raises(NotFound):
        await repeat(new_job_id())
    with pytest.raises(NotFound):
        await repeat(job.id, Alice(alice.stack, BOB))
    with pytest.raises(InvalidInput, match=r"jobs\.0\.retry_of"):
        await repeat("job_1")
    with pytest.raises(Conflict):
        await repeat(job.id, job_id=open_job.id)
    with pytest.raises(RateLimited):
        await repeat(job.id, version=2, running=1, waiting=0)
    await alice.prunes()
    with pytest.raises(NotFound):
        await repeat(job.id)
    assert await alice.counts() == {QUEUED: 1}


# --- the front


async def drawn(stack: SchedulerStack, count: int) -> list[str]:
    """The ids of the next jobs, in the order in which a worker is given them."""
    found = []
    async with stack.worker(offer=False) as worker:
        for _ in range(count):
            await worker.takes(1)
            job = await worker.is_assigned()
            found.append(str(job.job_id))
            await worker.finishes(job)
    return found


async def test_jobs_go_to_the_front(alice: Alice) -> None:
    a, b, c = await alice.submit(3)
    (other,) = await Alice(alice.stack, BOB).submit()
    d, e = await alice.submit(2, prepend=True)
    assert await alice.prepends(c.id, b.id, other.id, new_job_id()) == [c.id, b.id]
    positions = {one.id: (await alice.stack.get(one.id)).position for one in (c, b, d, e, a)}
    assert sorted(positions, key=lambda one: positions[one]) == ids([c, b, d, e, a])
    order = [one for one in await drawn(alice.stack, 6) if one != other.id]
    assert order == ids([c, b, d, e, a])
    assert await alice.prepends(a.id) == []  # it has ended
    with pytest.raises(InvalidInput, match="job_ids"):
        await alice.prepends()


async def test_the_front_survives_the_loss_of_the_queue(alice: Alice) -> None:
    a, b, c = await alice.submit(3)
    await alice.prepends(c.id)
    async with alice.stack.redis as redis:
        await redis.flushall()
    (d,) = await alice.submit(1, prepend=True)

    async def back() -> bool:
        return (await alice.stack.get(a.id)).position > 0

    await alice.stack.eventually(back)
    assert await drawn(alice.stack, 4) == ids([d, c, a, b])


async def test_a_job_that_goes_back_stands_where_it_was_moved(alice: Alice) -> None:
    a, b = await alice.submit(2)
    await alice.prepends(b.id)
    async with alice.stack.worker() as worker:
        job = await worker.is_assigned()
        assert job.job_id == b.id
        await worker.hands_back(job)
    assert await drawn(alice.stack, 2) == ids([b, a])


# --- out of sight


async def test_clearing_cancels_all_and_shows_nothing_more(alice: Alice) -> None:
    done, runs, waits = await alice.submit(3)
    async with alice.stack.worker() as worker:
        await worker.finishes(await worker.is_assigned())
        await worker.takes(1)
        assigned = await worker.is_assigned()
        await alice.stack.recorded(2)
        watching = asyncio.create_task(alice.stack.becomes(runs.id, CANCELLED))
        await alice.stack.eventually(lambda: watched(alice.stack, runs.id))
        assert await alice.clears() == (2, 3)
        assert (await worker.hears("cancel")).attempt_id == assigned.attempt_id
        assert (await worker.stops(assigned)).accepted
        assert (await watching).progress.step == 4  # whoever watches sees the end
    assert (await alice.lists(), await alice.counts()) == ([], {})
    for job in (done, runs, waits):
        with pytest.raises(NotFound):
            await alice.stack.get(job.id)
        with pytest.raises(NotFound):
            await alice.stack.becomes(job.id, CANCELLED)
        with pytest.raises(NotFound):
            await alice.stack.cancel(job.id)
    states = [
        (await alice.stack.jobs.ResolveJob(jobs_pb2.ResolveJobRequest(job_id=job.id))).state
        for job in (done, runs, waits)
    ]
    assert states == [SUCCEEDED, CANCELLED, CANCELLED]
    assert len(await alice.stack.events(6)) == 6
    assert await alice.clears() == (0, 0)
    assert await alice.stack.row("SELECT open FROM open_jobs") == 0


async def watched(stack: SchedulerStack, job_id: str) -> bool:
    async with stack.redis as redis:
        ((_, count),) = await redis.pubsub_numsub(f"easel:{{default}}:job:{job_id}")
    return bool(count)


async def test_pruning_hides_what_has_ended(alice: Alice) -> None:
    a, b, c = await alice.submit(3, batch_id="one")
    await alice.cancels(job_ids=[a.id, b.id])
    assert await alice.prunes(states=[SUCCEEDED]) == 0
    assert await alice.prunes(batch_ids=["two"]) == 0
    assert await alice.prunes(states=[CANCELLED], batch_ids=["one"]) == 2
    assert (await alice.lists(), await alice.counts()) == ([c.id], {QUEUED: 1})
    with pytest.raises(InvalidInput, match="states"):
        await alice.prunes(states=[QUEUED])


# --- history


async def test_jobs_are_removed_long_after_their_end(idle_stack: SchedulerStack) -> None:
    async with idle_stack.running():
        alice = Alice(idle_stack)
        old, young, waits = await alice.submit(3)
        async with idle_stack.worker() as worker:
            await worker.finishes(await worker.is_assigned())
        await alice.cancels(job_ids=[young.id])
        late = new_job_id()
        await idle_stack.jobs.ResolveJob(jobs_pb2.ResolveJobRequest(job_id=late))
        await idle_stack.execute(
            "UPDATE jobs SET finished_at = now() - interval '91 days' WHERE id = $1", old.id
        )
        await idle_stack.execute("UPDATE tombstones SET buried_at = now() - interval '91 days'")
    async with idle_stack.running():

        async def removed() -> bool:
            return await alice.lists() == ids([waits, young])

        await idle_stack.eventually(removed)
        for table in ("results", "attempts", "tombstones"):
            assert await idle_stack.row(f"SELECT count(*) FROM {table}") == 0
        assert len(await idle_stack.events(5)) == 5  # the feed keeps its own time


# --- plans


async def test_a_new_plan_moves_waiting_jobs(alice: Alice) -> None:
    await Alice(alice.stack, BOB).submit(5)
    _, last = await alice.submit(2)
    before = (await alice.stack.get(last.id)).position
    assert before > 2
    paid = entitlements(version=2, priority=100, weight=16)
    assert await alice.changes_to(paid) == paid
    assert (await alice.stack.get(last.id)).position < before
    older = entitlements(version=1, priority=0)
    assert await alice.changes_to(older) == paid
    assert await drawn(alice.stack, 1) == await alice.lists(states=[SUCCEEDED])
    seen = (await alice.stack.jobs.GetQueue(jobs_pb2.GetQueueRequest())).tiers
    assert [(tier.priority, tier.waiting_users) for tier in seen] == [(100, 1), (0, 1)]


async def test_a_plan_is_remembered_before_the_first_submit(alice: Alice) -> None:
    tight = entitlements(version=5, running=1, waiting=0)
    await alice.changes_to(tight)
    with pytest.raises(RateLimited):
        await alice.submit(2, plan=entitlements(version=4))
    with pytest.raises(InvalidInput, match=r"entitlements\.weight"):
        await alice.changes_to(jobs_pb2.Entitlements())


async def test_a_lower_running_limit_holds_at_once(alice: Alice) -> None:
    await alice.submit(3, plan=entitlements(running=3))
    async with alice.stack.worker(slots=3, offer=False) as worker:
        await worker.takes(1)
        first = await worker.is_assigned()
        await alice.changes_to(entitlements(version=2, running=1))
        await worker.takes(2)
        await worker.hears_nothing()
        await worker.finishes(first)
        await worker.takes(3)
        await worker.is_assigned()
        await worker.hears_nothing()
