"""A worker without a machine: speaks the work stream, says that the job ran, reports one picture.

`python -m bench.queue.easel.worker --address=… --name=… --journal=… --slots=…`
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc

from bench.queue.easel.request import MODEL
from bench.queue.journal import READY, Journal
from easel.common.v1 import generation_pb2, model_pb2
from easel.scheduler.v1 import lease_pb2 as lease
from easel.scheduler.v1.lease_pb2_grpc import LeaseServiceStub
from easel_kit.ids import new_id

_MODEL = model_pb2.Model(
    key=MODEL,
    name=MODEL,
    base="sd-1",
    type="main",
    defaults=model_pb2.ModelDefaults(steps=1, guidance=1, width_px=64, height_px=64),
    max_steps=50,
    samplers=["ddim"],
    loaded=True,
)


class NoOpWorker:
    """One stream with many slots."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Options as `main` reads them."""
        self._options = options
        self._slots: int = options.slots
        self._journal = Journal(options.journal)
        self._outgoing: asyncio.Queue[lease.WorkRequest] = asyncio.Queue()
        self._running: set[asyncio.Task[None]] = set()
        self._unsaid = 0

    async def run(self) -> None:
        """Works until the stream ends."""
        async with grpc.aio.insecure_channel(self._options.address) as channel:
            call = LeaseServiceStub(channel).Work(self._requests())
            async for answer in call:
                self._hear(answer)
        print("the stream ended", file=sys.stderr)

    async def _requests(self) -> AsyncIterator[lease.WorkRequest]:
        yield lease.WorkRequest(
            hello=lease.Hello(
                worker_id=self._options.name,
                address="127.0.0.1:1",
                lane=self._options.lane,
                device="none",
                slots=self._slots,
                models=[_MODEL],
            )
        )
        while True:
            yield await self._outgoing.get()

    def _hear(self, answer: lease.WorkResponse) -> None:
        kind = answer.WhichOneof("message")
        if kind == "assign":
            self._assigned(answer.assign)
        elif kind == "welcome":
            self._background(self._beat(answer.welcome.heartbeat_interval_ms / 1000))
            self._offer()
            self._journal.note(READY)

    def _assigned(self, job: lease.Assign) -> None:
        self._journal.note(job.generation.seed)
        hold_ms = int(job.generation.prompt)
        if hold_ms:
            self._background(self._hold(job, hold_ms))
        else:
            self._finish(job)

    async def _hold(self, job: lease.Assign, hold_ms: int) -> None:
        await asyncio.sleep(hold_ms / 1000)
        self._finish(job)

    def _finish(self, job: lease.Assign) -> None:
        image = generation_pb2.Image(
            id=new_id("img"),
            object_key=f"users/{job.user_id}/jobs/{job.job_id}/{job.attempt_id}/0.png",
            width_px=64,
            height_px=64,
            media_type="image/png",
            size_bytes=123,
            sha256="0" * 64,
            seed=job.generation.seed,
        )
        self._outgoing.put_nowait(
            lease.WorkRequest(
                finished=lease.AttemptFinished(
                    attempt_id=job.attempt_id,
                    images=[image],
                    steps_done=1,
                    first_step_ms=1,
                    total_ms=1,
                )
            )
        )
        # the scheduler counts what it sent and what it has settled itself: a word now and then
        # tells it enough
        self._unsaid += 1
        if self._unsaid * 2 >= self._slots:
            self._offer()

    def _offer(self) -> None:
        self._unsaid = 0
        self._outgoing.put_nowait(
            lease.WorkRequest(capacity=lease.Capacity(free_slots=self._slots))
        )

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _beat(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self._outgoing.put_nowait(lease.WorkRequest(heartbeat=lease.Heartbeat()))


def main() -> None:
    """Reads the options and works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of a scheduler")
    parser.add_argument("--name", required=True, help="the worker's id")
    parser.add_argument("--lane", required=True, help="the scheduler's lane")
    parser.add_argument("--journal", required=True, help="file that says which jobs ran")
    parser.add_argument("--slots", required=True, type=int, help="jobs at once")
    asyncio.run(NoOpWorker(parser.parse_args()).run())


if __name__ == "__main__":
    main()
