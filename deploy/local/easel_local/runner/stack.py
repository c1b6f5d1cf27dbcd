"""A whole stack: brings its parts up side by side, keeps them up, takes them down in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import structlog

from easel_kit.errors import DomainError
from easel_kit.lifecycle import Supervisor
from easel_local.process import StartFailed
from easel_local.runner.keeper import Keeper
from easel_local.runner.part import Part
from easel_local.runner.state import State


class Stack:
    """The parts of one stack and their keepers; `running` does the rest."""

    def __init__(
        self,
        state: State,
        parts: Sequence[Part],
        facts: Mapping[str, object],
        notice: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Prepare to run parts.

        Args:
            state: the stack's folder, held by the caller.
            parts: in any order; each names its needs.
            facts: what the report says besides the services.
            notice: told, in a sentence, when a part crashed and when it is back.
        """
        self.facts = facts
        self._state = state
        self._began = time.monotonic()
        self._failure: DomainError | None = None
        self._journal_file = state.log("runner").open("a", encoding="utf-8", buffering=1)
        journal = structlog.wrap_logger(
            structlog.WriteLogger(self._journal_file),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.add_log_level,
                structlog.processors.JSONRenderer(),
            ],
            service="runner",
        )
        self._journal = journal
        self.keepers = {part.name: Keeper(part, self._report, journal, notice) for part in parts}

    @contextlib.asynccontextmanager
    async def running(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Everything is ready inside the block and gone after it.

        Args:
            stop: ends the waiting for readiness; it is set when a part cannot be started.

        Raises:
            StartFailed: something did not start, or stop was set before all was ready.
        """
        self._journal.info("stack.starting", pid=os.getpid())
        try:
            async with Supervisor(stop) as tasks:
                for name, keeper in self.keepers.items():
                    tasks.start(name, self._live(keeper, stop), may_end=True)
                await self._wait_until_ready(stop)
                seconds = round(time.monotonic() - self._began, 3)
                self._journal.info("stack.ready", seconds=seconds)
                yield
        finally:
            await self._stop_all()
            self._journal.info("stack.stopped")
            self._journal_file.close()

    async def _live(self, keeper: Keeper, stop: asyncio.Event) -> None:
        try:
            await keeper.live(self.keepers)
        except DomainError as error:
            self._failure = self._failure or error
            stop.set()

    async def _wait_until_ready(self, stop: asyncio.Event) -> None:
        async def all_ready() -> None:
            for keeper in self.keepers.values():
                await keeper.ready.wait()

        waiting = [asyncio.ensure_future(all_ready()), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        if self._failure is not None:
            raise self._failure
        if stop.is_set():
            raise StartFailed("stopped before everything was up")

    async def _stop_all(self) -> None:
        """Stage by stage, the highest first; within a stage side by side."""
        order = sorted(self.keepers.values(), key=lambda keeper: -keeper.part.stage)
        for _stage, group in itertools.groupby(order, key=lambda keeper: keeper.part.stage):
            await asyncio.gather(*(keeper.stop() for keeper in group))

    def _report(self) -> None:
        services = {
            name: {
                "pid": keeper.pid,
                "phase": keeper.phase,
                "restarts": keeper.restarts,
                "address": keeper.part.address,
                "log": str(self._log_of(name)),
            }
            for name, keeper in self.keepers.items()
        }
        self._state.write_report({"runner_pid": os.getpid(), **self.facts, "services": services})

    def _log_of(self, name: str) -> Path:
        return self._state.logs / f"{name}.log"
