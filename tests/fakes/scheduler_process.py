"""Schedulers as processes of their own, to be killed or stopped, and what they log."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from easel_local.ports import free_port
from tests.fakes.scheduler_stack import SchedulerStack

_START_S = 60.0
_LOOK_S = 0.01


class SchedulerProcess:
    """One replica; `stack` speaks to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, stack: SchedulerStack, log: Path
    ) -> None:
        self.process = process
        self.stack = stack
        self._log = log

    def count(self, event: str) -> int:
        """How often it has logged this event."""
        return self._log.read_text().count(f'"event": "{event}"')

    async def logs(self, event: str, *, count: int = 1, within_s: float = _START_S) -> None:
        """Waits until it has logged this event so often."""
        async with asyncio.timeout(within_s):
            while self.count(event) < count:
                assert self.process.returncode is None, "the scheduler has ended"
                await asyncio.sleep(_LOOK_S)

    async def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def scheduler_process(
    stack: SchedulerStack, folder: Path, *, port: int = 0, **settings: float
) -> AsyncIterator[SchedulerProcess]:
    """A replica on the stores of `stack`, which is dialled to it; killed on leaving.

    It listens on `port`, or a free one. Its log lies in `folder`; `settings` are fields of the
    scheduler's settings.
    """
    port = port or free_port()
    log = folder / f"scheduler-{port}.log"
    env = {
        **os.environ,  # noqa: TID251 (for the child)
        "SCHEDULER_DATABASE_URL": stack.database_url,
        "SCHEDULER_REDIS_URL": stack.redis_url,
        "SCHEDULER_LISTEN": f"127.0.0.1:{port}",
        "SCHEDULER_GRACE_S": "1",
        **{f"SCHEDULER_{name.upper()}": str(value) for name, value in settings.items()},
    }
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scheduler", env=env, stdout=output
        )
    made = SchedulerProcess(process, stack, log)
    try:
        await made.logs("service.ready")
        stack.port = port
        async with stack.dialled():
            yield made
    finally:
        if process.returncode is None:
            await made.kill()
