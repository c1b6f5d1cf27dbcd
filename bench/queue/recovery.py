"""What becomes of a job whose worker is killed, or hangs, in the middle of it."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from bench.queue.plan import Plan
from bench.queue.processes import Failed
from bench.queue.producing import Job
from bench.queue.servers import Servers
from bench.queue.stage import Stage
from bench.queue.systems import System
from easel_local.process import Child

_HOLD_MS = 600
_TRAFFIC_S = 0.5
_FIRST_RUN_S = 20.0
_SLOTS = 4

Blow = Callable[[Child], None]


def kill(worker: Child) -> None:
    """`kill -9` of the worker and of all its processes."""
    worker.kill_group()


def stop(worker: Child) -> None:
    """The worker hangs: it is there and says nothing."""
    worker.send(signal.SIGSTOP)


async def recoveries(
    system: System,
    servers: Servers,
    folder: Path,
    plan: Plan,
    *,
    blow: Blow,
    count: int,
    until_s: float = math.inf,
    starting: asyncio.Lock,
) -> list[float | None]:
    """Seconds from the blow until another worker runs the job, for count blows.

    Two workers are up; a job that holds its worker comes to one of them, which takes the blow.
    Meanwhile other jobs come and go, as they would: some systems look for lost jobs only then.

    Args:
        system: under test.
        servers: that it uses.
        folder: for logs.
        plan: how long to wait.
        blow: what befalls the worker.
        count: blows at most.
        until_s: no blow begins so many seconds after the first.
        starting: held while the system starts, so that others are not starved by it.

    Returns:
        None for a job that did not run elsewhere within the plan's cap.

    Raises:
        Failed: the system did not do what was asked of it.
    """
    found: list[float | None] = []
    async with AsyncExitStack() as stack:
        async with starting:
            stage = Stage(system, servers, folder, plan)
            await stack.enter_async_context(stage)
            for _ in range(2):
                await stage.hire(_SLOTS)
        began_s = time.monotonic()
        while True:
            found.append(await _one(stage, blow, plan))
            late = time.monotonic() - began_s > until_s
            if found[-1] is None or late or len(found) == count:
                return found
            await stage.settled(0)
            await stage.hire(_SLOTS)


async def _one(stage: Stage, blow: Blow, plan: Plan) -> float | None:
    stage.forget()
    (number,) = stage.numbers(1)
    await stage.put([Job(number, _HOLD_MS)])
    run = await stage.run_of(number, within_s=_FIRST_RUN_S)
    if run is None:
        raise Failed("a job does not run at all")
    victim = stage.worker_of(run)
    blow(victim)
    struck_s = time.monotonic()
    stage.give_up(victim)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_traffic(stage, over))
        rerun = await stage.run_of(number, not_in=run.pid, within_s=plan.recovery_cap_s)
        over.set()
    await stage.dismiss(victim)
    return None if rerun is None else rerun.at_s - struck_s


async def _traffic(stage: Stage, over: asyncio.Event) -> None:
    while not over.is_set():
        await stage.put([Job(number) for number in stage.numbers(1)])
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _TRAFFIC_S)
