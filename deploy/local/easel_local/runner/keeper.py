"""Keeps one part of a stack running: starts it after its needs, restarts it when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from easel_kit.errors import DependencyDown
from easel_local.process import StartFailed
from easel_local.runner.part import Part

Phase = Literal["waiting", "starting", "ready", "done", "restarting", "failed", "stopped"]

_FIRST_TRIES = 2  # a program that cannot start at all shall say so soon
_WRONG_SETTINGS = 2  # exit status of a service that refuses its settings: no use to try again
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_STABLE_S = 10.0  # after this long a crash counts as the first again


class Journal(Protocol):
    """Where a keeper writes what happened."""

    def info(self, event: str, **fields: object) -> object:
        """Write what is as it should be."""
        ...

    def warning(self, event: str, **fields: object) -> object:
        """Write what is not."""
        ...


class Keeper:
    """One part, its phase, and how often it was restarted."""

    def __init__(
        self,
        part: Part,
        on_change: Callable[[], None],
        journal: Journal,
        notice: Callable[[str], None],
    ) -> None:
        """Keep part.

        Args:
            part: what to keep.
            on_change: called after each change of phase.
            journal: for all that happens.
            notice: for what a person wants to know at once.
        """
        self.part = part
        self.phase: Phase = "waiting"
        self.restarts = 0
        self.ready = asyncio.Event()
        """Set when it was ready for the first time; stays set over restarts."""
        self._on_change = on_change
        self._journal = journal
        self._notice = notice

    @property
    def pid(self) -> int | None:
        """The process that runs now, if any."""
        child = self.part.unit.child
        return child.pid if child is not None and child.returncode is None else None

    async def live(self, others: Mapping[str, Keeper]) -> None:
        """Bring the part up after its needs and keep it up until cancelled.

        Raises:
            StartFailed: it could not be started in the first place.
        """
        for need in self.part.needs:
            await others[need].ready.wait()
        await self._first_start()
        pause_s = _FIRST_PAUSE_S
        while not self.part.ends:
            lived_s = await self._watch()
            pause_s = _FIRST_PAUSE_S if lived_s > _STABLE_S else pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self.restarts += 1
            try:
                await self._start()
            except DependencyDown as error:
                self._journal.warning("service.failed", name=self.part.name, error=str(error))
            else:
                self._notice(f"{self.part.name} is back")

    async def stop(self) -> None:
        """Take the part down; to be called when `live` has been cancelled."""
        began = time.monotonic()
        await self.part.unit.stop()
        self._journal.info("service.stopped", name=self.part.name, seconds=_since(began))
        self._change("stopped")

    async def _first_start(self) -> None:
        for left in reversed(range(_FIRST_TRIES)):
            try:
                await self._start()
            except StartFailed as error:
                child = self.part.unit.child
                refused = child is not None and child.returncode == _WRONG_SETTINGS
                if not left or refused:
                    raise
                self._journal.warning("service.failed", name=self.part.name, error=str(error))
            else:
                return

    async def _start(self) -> None:
        began = time.monotonic()
        self._change("starting")
        try:
            await self.part.unit.start()
        except BaseException:
            self._change("failed")
            raise
        self._journal.info(
            "service.ready", name=self.part.name, pid=self.pid, seconds=_since(began)
        )
        self._change("done" if self.part.ends else "ready")
        self.ready.set()

    async def _watch(self) -> float:
        """Wait until the process ends and return for how many seconds it was watched."""
        began = time.monotonic()
        child = self.part.unit.child
        if child is not None and self.phase == "ready":
            status = await child.wait()
            self._journal.warning("service.ended", name=self.part.name, status=status)
            self._notice(f"{self.part.name} ended with {status} and is started again")
        self._change("restarting")
        return time.monotonic() - began

    def _change(self, phase: Phase) -> None:
        self.phase = phase
        self._on_change()


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
