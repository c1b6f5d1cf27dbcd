"""A part of a stack: what it is (data) and how it is brought up and taken down."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from easel_local.process import Child, StartFailed, last_words
from easel_local.runner.health import Health, answers

_READY_DEADLINE_S = 120.0  # a first import of torch from a cold disk
_COMMAND_DEADLINE_S = 120.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Service:
    """One row of the table of services: a program that runs, or a command that ends.

    Attributes:
        name: also of its log.
        argv: the program; ``python`` stands for this interpreter.
        env: added to the environment, over what the person set.
        defaults: added to the environment where the person set nothing.
        health: who says that it is ready; None for a command, which is ready when it ended well.
        done: for a command: asked first whether it has nothing to do.
        needs: names of what must be ready before it starts.
        stage: what has the higher one is stopped first.
        grace_s: between SIGTERM and SIGKILL.
        address: where others reach it, for the report.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    health: Health | None = None
    done: Callable[[], Awaitable[bool]] | None = None
    needs: tuple[str, ...] = ()
    stage: int = 1
    grace_s: float = 12.0
    address: str = ""


class Unit(Protocol):
    """Something that can be started, also again, and stopped."""

    @property
    def child(self) -> Child | None:
        """Its process, None before the start or when it has none."""
        ...

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            StartFailed: it is not; nothing of it is left running.
        """
        ...

    async def stop(self) -> None:
        """Stop it and wait for its end, for a bounded time; nothing happens if it has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A unit and its place in the stack; the fields are those of `Service`."""

    name: str
    unit: Unit
    needs: tuple[str, ...] = ()
    stage: int = 0
    ends: bool = False
    address: str = ""


class Program:
    """A service's process."""

    def __init__(self, service: Service, base_env: Mapping[str, str], log: Path) -> None:
        """Prepare to run service with base_env under its own, output appended to log."""
        self._service = service
        self._env = {**service.defaults, **base_env, **service.env}
        self._log = log
        self._child: Child | None = None

    @property
    def child(self) -> Child | None:
        """Its process, None before the start."""
        return self._child

    async def start(self) -> None:
        """Start it and wait until it is ready; a command: until it ended.

        Raises:
            StartFailed: it ended badly, or took longer than two minutes.
        """
        if self._service.done is not None and await self._service.done():
            return
        argv = [sys.executable if word == "python" else word for word in self._service.argv]
        self._child = Child(argv, log=self._log, env=self._env, death_signal=signal.SIGKILL)
        try:
            if self._service.health is None:
                await self._wait_for_end(self._child)
            else:
                await self._wait_until_ready(self._child, self._service.health)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ask it to end, kill it after its grace."""
        if self._child is not None:
            await self._child.stop(signal.SIGTERM, grace_s=self._service.grace_s)

    async def _wait_for_end(self, child: Child) -> None:
        try:
            status = await asyncio.wait_for(child.wait(), _COMMAND_DEADLINE_S)
        except TimeoutError:
            raise self._failure("did not end in time") from None
        if status != 0:
            raise self._failure(f"ended with {status}")

    async def _wait_until_ready(self, child: Child, health: Health) -> None:
        deadline = time.monotonic() + _READY_DEADLINE_S
        while time.monotonic() < deadline:
            if (status := child.returncode) is not None:
                raise self._failure(f"ended with {status} before it was ready")
            if await answers(health):
                return
            await asyncio.sleep(_POLL_S)
        raise self._failure("was not ready in time")

    def _failure(self, what: str) -> StartFailed:
        return StartFailed(
            f"{self._service.name} {what}; log: {self._log}\n{last_words(self._log)}"
        )


class Step:
    """A short piece of work of the runner's own, as a unit."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do work when started; it may be repeated."""
        self._work = work

    @property
    def child(self) -> None:
        """It has no process."""
        return

    async def start(self) -> None:
        """Do the work."""
        await self._work()

    async def stop(self) -> None:
        """Nothing is left of it."""
