"""Submits to Easel: over gRPC to replicas in turn, or through the use case of one in this process.

`python -m bench.queue.easel.producer grpc '["host:port", …]'`
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from contextlib import AsyncExitStack, suppress

from bench.queue.easel.request import request
from bench.queue.producing import Job, serve
from easel.scheduler.v1.jobs_pb2_grpc import JobServiceStub
from easel_kit.ids import new_job_id
from easel_kit.log import configure_logging
from easel_kit.rpc.channel import open_channel
from scheduler.main import run
from scheduler.rpc.mapping import submission
from scheduler.service.submits import Submits
from scheduler.settings import Settings


async def _over_grpc(addresses: list[str]) -> None:
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(open_channel(address)) for address in addresses]
        stubs = itertools.cycle([JobServiceStub(channel) for channel in channels])

        async def submit(job: Job) -> None:
            wanted = request(new_job_id(), job.number, hold_ms=job.hold_ms, high=job.high)
            await next(stubs).SubmitJobs(wanted)

        await serve(submit)


async def _in_process() -> None:
    built: asyncio.Future[Submits] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    replica = asyncio.create_task(run(Settings(), stop, on_submits=built.set_result))
    both: list[asyncio.Future[object]] = [replica, built]  # type: ignore[list-item]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if replica.done():
        replica.result()
    submits = built.result()

    async def submit(job: Job) -> None:
        wanted = request(new_job_id(), job.number, hold_ms=job.hold_ms, high=job.high)
        await submits.submit(submission(wanted, {}, ""))

    await serve(submit)
    stop.set()
    with suppress(asyncio.CancelledError):
        await replica


if __name__ == "__main__":
    configure_logging("bench", "warning")
    door, targets = sys.argv[1:]
    asyncio.run(_over_grpc(json.loads(targets)) if door == "grpc" else _in_process())
