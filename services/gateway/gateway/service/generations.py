"""Jobs for callers: submit under a hold, look, list, cancel, watch, wait."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from easel_kit.errors import (
    Conflict,
    DeadlineExceeded,
    DependencyDown,
    Forbidden,
    Internal,
    InvalidInput,
    InvalidState,
    NotFound,
    Overloaded,
    RateLimited,
)
from easel_kit.ids import JobId, UserId, new_job_id
from gateway.domain.account import Hold
from gateway.domain.batch import expanded
from gateway.domain.generation import Generation
from gateway.domain.job import Batch, Job, JobFilter, JobUpdate, Order
from gateway.domain.library import pictures_of_job
from gateway.domain.wish import Wish
from gateway.ports import Holds, Jobs, Library
from gateway.service.orders import Orders
from gateway.service.streams import until

# The scheduler has answered, and the job was not queued: only then is its hold ours to release.
_REFUSED = (RateLimited, InvalidInput, InvalidState, Forbidden, NotFound, Conflict)
# The scheduler has not answered, or could not say: the job may run, so its hold stays. Billing
# asks the scheduler (ResolveJob) before a hold expires.
_UNANSWERED = (DependencyDown, DeadlineExceeded, Overloaded, Internal)
_SEED_END = 2**32
# A watch that is cut is taken up again: pauses in seconds; after the last it counts as failed.
_WATCH_PAUSES_S = (0.1, 0.2, 0.4, 0.8, *(1.0,) * 30)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PricedJob:
    """A job with its hold; None while billing does not answer."""

    job: Job
    hold: Hold | None


@dataclass(frozen=True, slots=True)
class PricedPage:
    """Jobs, newest first; an empty token says that this is the last page."""

    jobs: tuple[PricedJob, ...]
    next_page_token: str


class Generations:
    """A user's jobs."""

    def __init__(
        self,
        jobs: Jobs,
        holds: Holds,
        library: Library,
        orders: Orders,
        stop: asyncio.Event,
    ) -> None:
        """Queue and truth are the scheduler's, money is billing's; `stop` ends every watch."""
        self._jobs = jobs
        self._holds = holds
        self._library = library
        self._orders = orders
        self._stop = stop
        self._unbroken = _Unbroken()

    async def submit(self, user_id: UserId, job_id: JobId, wish: Wish) -> PricedJob:
        """Reserves the price and queues the job. Goes on to its end if the caller is cancelled.

        Raises:
            InvalidInput: names the field and what is allowed.
            InsufficientCredits: nothing else happened.
            Forbidden: the plan does not allow this.
            RateLimited: too many of the user's jobs run and wait; nothing is held.
            DependencyDown: unanswered; the job of this id may still run, and is paid for if so.
            DeadlineExceeded: as DependencyDown.
        """
        generation = await self._orders.settle(user_id, wish, fresh_seed=_fresh_seed())
        (priced,) = await self._reserve_and_queue(user_id, Batch((Order(job_id, generation),)))
        return priced

    async def submit_batch(
        self,
        user_id: UserId,
        batch_id: str,
        wish: Wish,
        *,
        prompts: Sequence[str],
        seeds: Sequence[int],
        runs: int,
        prepend: bool,
    ) -> tuple[PricedJob, ...]:
        """As `submit` for each prompt with each seed, `runs` times: all are accepted or none is.

        The prompt and seed of `wish` are not used.

        Raises:
            InvalidInput: as `submit`, or too many jobs for one batch.
        """
        base = await self._orders.settle(user_id, wish, fresh_seed=0)
        generations = expanded(base, prompts, seeds, runs, fresh_seed=_fresh_seed)
        orders = tuple(Order(new_job_id(), generation) for generation in generations)
        return await self._reserve_and_queue(user_id, Batch(orders, batch_id, prepend))

    async def retry(self, user_id: UserId, job_id: JobId, new_id: JobId) -> PricedJob:
        """The same work again, as a new job with a price of its own.

        Raises:
            NotFound: no such job, or someone else's.
            InvalidState: it has not ended, or a picture that it reads is gone.
            InsufficientCredits: as `submit`, like all else that it raises.
        """
        old = await self._jobs.get(user_id, job_id)
        if not old.state.has_ended:
            raise InvalidState("the job has not ended yet")
        await self._still_there(user_id, old.generation)
        (priced,) = await self._reserve_and_queue(
            user_id, Batch((Order(new_id, old.generation, retry_of=job_id),))
        )
        return priced

    async def get(self, user_id: UserId, job_id: JobId) -> PricedJob:
        """One job.

        Raises:
            NotFound: no such job, or someone else's.
        """
        return await self.price(user_id, await self._jobs.get(user_id, job_id))

    async def list(
        self, user_id: UserId, wanted: JobFilter, *, page_size: int, page_token: str
    ) -> PricedPage:
        """The user's jobs that are wanted, newest first; `page_size` 1 to 100."""
        page = await self._jobs.list(user_id, wanted, page_size=page_size, page_token=page_token)
        return PricedPage(await self._priced(user_id, page.jobs), page.next_page_token)

    async def cancel(self, user_id: UserId, job_id: JobId) -> PricedJob:
        """Asks a job to stop. Idempotent; one that has ended is answered as it is.

        Raises:
            NotFound: no such job, or someone else's.
        """
        return await self.price(user_id, await self._jobs.cancel(user_id, job_id))

    def watch(self, user_id: UserId, job_id: JobId) -> AsyncGenerator[JobUpdate, None]:
        """The job now, then each change, over cuts of the connection.

        Ends with the job, and early where the gateway stops.

        Raises:
            NotFound: no such job, or someone else's.
            DependencyDown: the scheduler has been away for half a minute.
        """
        return until(self._stop, self._watch(user_id, job_id))

    async def wait(self, user_id: UserId, job_id: JobId, *, wait_s: float) -> PricedJob:
        """The job once it has ended, or as it stands after `wait_s` seconds."""
        with suppress(TimeoutError, *_UNANSWERED):
            async with (
                asyncio.timeout(wait_s),
                aclosing(self.watch(user_id, job_id)) as updates,
            ):
                async for _ in updates:
                    pass
        return await self.get(user_id, job_id)

    async def price(self, user_id: UserId, job: Job) -> PricedJob:
        """A job that is at hand already, with its hold; its pictures are in the library then."""
        return (await self._priced(user_id, (job,)))[0]

    async def drain(self) -> None:
        """Waits for submits whose callers have gone; each has a deadline of its own."""
        await self._unbroken.finish()

    async def _still_there(self, user_id: UserId, order: Generation) -> None:
        sources = order.sources
        if not sources:
            return
        wanted = {source.image_id for source in sources.values()}
        found = await self._library.object_keys(user_id, wanted)
        for field, source in sources.items():
            if source.image_id not in found:
                raise InvalidState(f"{field}: {source.image_id} is no longer in your library")

    async def _reserve_and_queue(self, user_id: UserId, batch: Batch) -> tuple[PricedJob, ...]:
        return await self._unbroken.run(self._reserve_then_queue(user_id, batch))

    async def _reserve_then_queue(self, user_id: UserId, batch: Batch) -> tuple[PricedJob, ...]:
        generations = {order.job_id: order.generation for order in batch.orders}
        placed = await self._holds.place_holds(user_id, generations)
        try:
            jobs = await self._jobs.submit(user_id, batch, placed.entitlements)
        except _REFUSED as refusal:
            # unanswered, billing frees it by itself once the scheduler says there is no such job
            with suppress(*_UNANSWERED):
                await self._holds.release_holds(list(generations), "refused")
            if isinstance(refusal, RateLimited):
                raise _too_many(refusal) from refusal
            raise
        return tuple(PricedJob(job, placed.holds.get(job.id)) for job in jobs)

    async def _watch(self, user_id: UserId, job_id: JobId) -> AsyncGenerator[JobUpdate, None]:
        pauses = iter(_WATCH_PAUSES_S)
        while True:
            with suppress(*_UNANSWERED):
                async with aclosing(self._jobs.watch(user_id, job_id)) as updates:
                    async for update in updates:
                        pauses = iter(_WATCH_PAUSES_S)
                        yield update
                        if update.job.state.has_ended:
                            return
            pause_s = next(pauses, None)
            if pause_s is None:
                raise DependencyDown("the job cannot be watched at this moment")
            await asyncio.sleep(pause_s)

    async def _priced(self, user_id: UserId, jobs: Sequence[Job]) -> tuple[PricedJob, ...]:
        pictures = tuple(picture for job in jobs for picture in pictures_of_job(job))
        if pictures:
            # whoever learns of a picture can ask for it, even before the feed has brought it
            with suppress(*_UNANSWERED):
                await self._library.record(pictures)
        holds: dict[JobId, Hold] = {}
        if jobs:
            with suppress(*_UNANSWERED):
                holds = await self._holds.get_holds(user_id, [job.id for job in jobs])
        return tuple(PricedJob(job, holds.get(job.id)) for job in jobs)


def _fresh_seed() -> int:
    return secrets.randbelow(_SEED_END)


def _too_many(refusal: RateLimited) -> RateLimited:
    return RateLimited(
        "Too many concurrent requests",
        retry_after_s=refusal.retry_after_s,
        limit=refusal.limit,
        current=refusal.current,
    )


class _Unbroken:
    """Runs work to its end even where whoever waits for it is cancelled."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def finish(self) -> None:
        while self._running:
            await asyncio.wait(self._running)
