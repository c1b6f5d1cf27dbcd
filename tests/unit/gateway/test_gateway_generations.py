"""Submit, price, watch and wait, over ports in memory."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from easel_kit import errors, ids
from gateway.domain.account import Hold, HoldState
from gateway.domain.catalogue import Feature
from gateway.domain.generation import Source
from gateway.domain.job import Job, JobFilter, JobState, JobUpdate
from gateway.domain.library import pictures_of_job
from gateway.domain.wish import InitWish, Wish
from gateway.service import generations as module
from gateway.service.catalogue import Catalogue
from gateway.service.generations import Generations
from gateway.service.orders import Orders
from tests.fakes.gateway_money import FakeHolds
from tests.fakes.gateway_ports import (
    ALICE,
    MALLORY,
    FakeJobs,
    FakeLibrary,
    FakeModels,
    MovedClock,
    finished,
    job,
    model,
)

WISH = Wish(prompt="a red circle")


@dataclass
class Bench:
    jobs: FakeJobs = field(default_factory=FakeJobs)
    holds: FakeHolds = field(default_factory=FakeHolds)
    library: FakeLibrary = field(default_factory=FakeLibrary)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.jobs.go_on.set()
        models = FakeModels([model(features=tuple(Feature))])
        catalogue = Catalogue(models, MovedClock())
        orders = Orders(self.library, catalogue)
        self.service = Generations(self.jobs, self.holds, self.library, orders, self.stop)

    def keep(self, kept: Job) -> Job:
        self.jobs.jobs[kept.id] = kept
        return kept


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(module, "_WATCH_PAUSES_S", (0.0, 0.0, 0.0))
    return Bench()


async def test_a_submit_reserves_then_queues(bench: Bench) -> None:
    job_id = ids.new_job_id()
    priced = await bench.service.submit(ALICE, job_id, WISH)
    assert (priced.job.id, priced.job.state) == (job_id, JobState.QUEUED)
    assert (priced.hold, bench.holds.available) == (bench.holds.holds[job_id], 960)
    assert 0 <= priced.job.generation.seed < 2**32


async def test_without_credits_nothing_is_submitted(bench: Bench) -> None:
    bench.holds.available = 39
    with pytest.raises(errors.InsufficientCredits):
        await bench.service.submit(ALICE, ids.new_job_id(), WISH)
    assert not bench.jobs.entered.is_set()


@pytest.mark.parametrize(
    "refusal",
    [
        errors.InvalidInput("steps", "too many"),
        errors.InvalidState("buried"),
        errors.Forbidden("no"),
        errors.NotFound("model", "x"),
        errors.Conflict("other work"),
        errors.RateLimited("3 of 3", retry_after_s=5, limit=3, current=3),
    ],
)
async def test_a_refusal_frees_the_hold(bench: Bench, refusal: errors.DomainError) -> None:
    bench.jobs.refuse = refusal
    with pytest.raises(type(refusal)) as caught:
        await bench.service.submit(ALICE, ids.new_job_id(), WISH)
    assert bench.holds.available == 1000
    if isinstance(caught.value, errors.RateLimited):
        assert str(caught.value) == "Too many concurrent requests"
        assert (caught.value.retry_after_s, caught.value.limit) == (5, 3)


@pytest.mark.parametrize(
    "fault",
    [
        errors.DependencyDown("away"),
        errors.DeadlineExceeded("late"),
        errors.Overloaded("busy"),
        errors.Internal("a bug"),
        errors.AlreadyExists("that job"),
        RuntimeError("a bug of ours"),
    ],
)
async def test_whatever_is_no_refusal_leaves_the_hold(bench: Bench, fault: Exception) -> None:
    bench.jobs.after = fault
    with pytest.raises(type(fault)):
        await bench.service.submit(ALICE, ids.new_job_id(), WISH)
    assert bench.holds.available == 960


async def test_a_refusal_is_told_even_if_the_hold_cannot_be_freed_now(bench: Bench) -> None:
    bench.jobs.refuse = errors.InvalidState("buried")
    bench.holds.fault = errors.DependencyDown("away")
    with pytest.raises(errors.InvalidState):
        await bench.service.submit(ALICE, ids.new_job_id(), WISH)


async def test_a_cancelled_caller_strands_nothing(bench: Bench) -> None:
    bench.jobs.go_on.clear()
    job_id = ids.new_job_id()
    caller = asyncio.ensure_future(bench.service.submit(ALICE, job_id, WISH))
    await bench.jobs.entered.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    bench.jobs.go_on.set()
    await bench.service.drain()
    assert job_id in bench.jobs.jobs


async def test_a_job_is_shown_with_its_price_and_kept_in_the_library(bench: Bench) -> None:
    done = bench.keep(finished())
    hold = Hold(
        job_id=done.id,
        state=HoldState.CAPTURED,
        amount_millicredits=40,
        captured_millicredits=30,
    )
    bench.holds.holds[done.id] = hold
    priced = await bench.service.get(ALICE, done.id)
    assert (priced.job, priced.hold) == (done, hold)
    assert bench.library.pictures.keys() == {image.id for image in done.images}
    with pytest.raises(errors.NotFound):
        await bench.service.get(MALLORY, done.id)


async def test_a_job_is_shown_without_billing_and_library(bench: Bench) -> None:
    done = bench.keep(finished())
    bench.holds.fault = bench.library.fault = errors.DependencyDown("away")
    priced = await bench.service.get(ALICE, done.id)
    assert (priced.job, priced.hold) == (done, None)


async def test_pages_and_cancels_are_priced(bench: Bench) -> None:
    waiting = bench.keep(job())
    bench.keep(finished())
    page = await bench.service.list(
        ALICE, JobFilter(states=(JobState.QUEUED,)), page_size=20, page_token=""
    )
    assert [priced.job for priced in page.jobs] == [waiting]
    assert page.next_page_token == ""
    empty = await bench.service.list(MALLORY, JobFilter(), page_size=20, page_token="")
    assert empty.jobs == ()
    assert (await bench.service.cancel(ALICE, waiting.id)).job.state is JobState.CANCELLED


async def test_a_watch_outlasts_cuts_and_ends_with_the_job(bench: Bench) -> None:
    kept = bench.keep(job())
    ended = JobUpdate(finished())
    bench.jobs.streams = [
        [JobUpdate(kept), errors.DependencyDown("cut")],
        [errors.DeadlineExceeded("cut")],
        [],
        [JobUpdate(kept), ended, JobUpdate(kept)],
    ]
    told = [update async for update in bench.service.watch(ALICE, kept.id)]
    assert told == [JobUpdate(kept), JobUpdate(kept), ended]
    assert bench.jobs.watching == 0


async def test_a_watch_gives_up_in_the_end(bench: Bench) -> None:
    kept = bench.keep(job())
    bench.jobs.streams = [[errors.DependencyDown("cut")] for _ in range(4)]
    with pytest.raises(errors.DependencyDown, match="cannot be watched"):
        [update async for update in bench.service.watch(ALICE, kept.id)]


async def test_a_stop_ends_a_watch(bench: Bench) -> None:
    kept = bench.keep(job())
    bench.jobs.streams = [[JobUpdate(kept)]]
    told = []
    async for update in bench.service.watch(ALICE, kept.id):
        told.append(update)
        bench.stop.set()
    assert told == [JobUpdate(kept)]
    assert bench.jobs.watching == 0


async def test_a_watch_that_is_left_is_closed(bench: Bench) -> None:
    kept = bench.keep(job())
    bench.jobs.streams = [[JobUpdate(kept)]]
    updates = bench.service.watch(ALICE, kept.id)
    assert await anext(updates) == JobUpdate(kept)
    assert bench.jobs.watching == 1
    await updates.aclose()
    assert bench.jobs.watching == 0


async def test_waiting_ends_with_the_job_or_the_time(bench: Bench) -> None:
    kept = bench.keep(job())
    assert (await bench.service.wait(ALICE, kept.id, wait_s=0.01)).job is kept
    done = bench.keep(finished())
    bench.jobs.streams = [[JobUpdate(done)]]
    assert (await bench.service.wait(ALICE, done.id, wait_s=5)).job is done
    with pytest.raises(errors.NotFound):
        await bench.service.wait(MALLORY, done.id, wait_s=5)


async def test_a_batch_is_each_prompt_with_each_seed_as_often_as_asked(bench: Bench) -> None:
    found = await bench.service.submit_batch(
        ALICE, "bat_1", WISH, prompts=["a", "b"], seeds=[1, 2], runs=2, prepend=False
    )
    drawn = [(one.job.generation.prompt, one.job.generation.seed) for one in found]
    assert drawn == [("a", 1), ("a", 2), ("b", 1), ("b", 2)] * 2
    assert {one.job.batch_id for one in found} == {"bat_1"}
    assert bench.holds.available == 1000 - 8 * 40
    assert all(one.hold == bench.holds.holds[one.job.id] for one in found)


async def test_without_seeds_each_job_of_a_batch_draws_its_own(bench: Bench) -> None:
    found = await bench.service.submit_batch(
        ALICE, "bat_1", WISH, prompts=["a"], seeds=[], runs=20, prepend=False
    )
    assert len({one.job.generation.seed for one in found}) == 20


async def test_a_batch_that_is_refused_holds_nothing(bench: Bench) -> None:
    bench.jobs.refuse = errors.RateLimited("full", limit=3, current=2)
    with pytest.raises(errors.RateLimited, match="Too many concurrent requests"):
        await bench.service.submit_batch(
            ALICE, "bat_1", WISH, prompts=["a"], seeds=[], runs=3, prepend=False
        )
    assert bench.holds.available == 1000
    with pytest.raises(errors.InvalidInput, match="501 jobs; at most 500"):
        await bench.service.submit_batch(
            ALICE, "bat_1", WISH, prompts=["a"] * 167, seeds=[1, 2, 3], runs=1, prepend=False
        )
    assert bench.jobs.jobs == {}


def _begun_with(bench: Bench) -> tuple[Job, Wish]:
    """A job that has ended, and a wish for a picture that begins with its first one."""
    done = bench.keep(finished())
    wish = Wish(prompt="x", init_image=InitWish(done.images[0].id, 0.5, done.images[1].id))
    return done, wish


async def test_pictures_are_of_the_callers_own_library(bench: Bench) -> None:
    done, wish = _begun_with(bench)
    with pytest.raises(errors.InvalidInput, match=r"init_image\.image"):
        await bench.service.submit(ALICE, ids.new_job_id(), wish)
    await bench.library.record(pictures_of_job(done))
    with pytest.raises(errors.InvalidInput, match=r"init_image\.image"):
        await bench.service.submit(MALLORY, ids.new_job_id(), wish)
    assert bench.holds.holds == {}
    priced = await bench.service.submit(ALICE, ids.new_job_id(), wish)
    begun = priced.job.generation.init_image
    assert begun is not None
    assert begun.picture == Source(done.images[0].id, done.images[0].object_key)
    assert begun.mask == Source(done.images[1].id, done.images[1].object_key)
    batch = await bench.service.submit_batch(
        ALICE, "bat_1", wish, prompts=["a", "b"], seeds=[], runs=1, prepend=False
    )
    assert [one.job.generation.init_image for one in batch] == [begun, begun]


async def test_a_retry_needs_the_pictures_that_it_reads(bench: Bench) -> None:
    done, wish = _begun_with(bench)
    await bench.library.record(pictures_of_job(done))
    old = (await bench.service.submit(ALICE, ids.new_job_id(), wish)).job
    bench.keep(replace(old, state=JobState.FAILED))
    again = await bench.service.retry(ALICE, old.id, ids.new_job_id())
    assert again.job.generation == old.generation
    await bench.library.remove(ALICE, done.images[1].id)
    with pytest.raises(errors.InvalidState, match=r"init_image\.mask"):
        await bench.service.retry(ALICE, old.id, ids.new_job_id())


async def test_a_retry_is_the_same_work_as_a_new_job(bench: Bench) -> None:
    old = bench.keep(finished())
    again = await bench.service.retry(ALICE, old.id, ids.new_job_id())
    assert again.job.id != old.id
    assert (again.job.generation, again.job.retry_of) == (old.generation, old.id)
    assert again.hold is not None
    with pytest.raises(errors.InvalidState):
        await bench.service.retry(ALICE, again.job.id, ids.new_job_id())
    with pytest.raises(errors.NotFound):
        await bench.service.retry(MALLORY, old.id, ids.new_job_id())
