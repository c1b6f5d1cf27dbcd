"""Processes of the systems under test: started so that they die with us, and what they cost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.queue.producing import Job
from easel_kit.errors import DependencyDown
from easel_local.process import Child, last_words, launcher

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STOP_GRACE_S = 5.0
_START_S = 30.0
# /proc/<pid>/stat after the name in brackets, see proc_pid_stat(5)
_PARENT, _TIMES = 1, slice(11, 15)


@dataclass(frozen=True, slots=True)
class Command:
    """A program to start."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Ours, and what is its own."""
        ours = os.environ  # noqa: TID251 (handed on as a whole, never read)
        return {**ours, **self.env}


class Failed(DependencyDown):
    """A system did not do what was asked of it; the text says what and shows its last words."""


def start(command: Command, log: Path) -> Child:
    """Starts a program in the background; its output goes to the log."""
    return Child(command.argv, env=command.environment(), log=log)


async def run_to_end(command: Command, log: Path, *, within_s: float) -> None:
    """Runs a program until it ends.

    Raises:
        Failed: it did not end well, or not in time.
    """
    child = start(command, log)
    try:
        status = await asyncio.wait_for(child.wait(), within_s)
    except TimeoutError:
        status = None
    finally:
        child.kill_group()
    if status != 0:
        raise Failed(f"{' '.join(command.argv[-3:])} ended with {status}:\n{last_words(log)}")


async def halt(child: Child) -> None:
    """Ends a program and all that it started, also one that was stopped by a signal."""
    child.send(signal.SIGCONT)
    await child.stop(grace_s=_STOP_GRACE_S)


class Producer:
    """A process that submits through a system's own library; see `producing`."""

    def __init__(self, process: Process, log: Path) -> None:
        """Use `opened`."""
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @classmethod
    async def opened(cls, command: Command, log: Path) -> Self:
        """Starts it and waits until it is connected.

        Raises:
            Failed: it did not come up.
        """
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *launcher(command.argv),
                stdin=PIPE,
                stdout=PIPE,
                stderr=output,
                env=command.environment(),
                start_new_session=True,
            )
        producer = cls(process, log)
        try:
            await producer._read(_START_S)
        except BaseException:
            await producer.close()
            raise
        return producer

    async def burst(
        self, *, first: int, most: int, seconds: float, in_flight: int, within_s: float
    ) -> tuple[int, float]:
        """Submits jobs first, first + 1, …; answers how many and the seconds that it took."""
        answer = await self._ask(
            {"op": "burst", "first": first, "most": most, "seconds": seconds}
            | {"in_flight": in_flight},
            within_s,
        )
        return answer["count"], answer["seconds"]

    async def put(
        self, jobs: Sequence[Job], *, gaps_s: Sequence[float] = (), within_s: float
    ) -> list[float]:
        """Submits jobs one after the other, with pauses; answers when each submit was called."""
        request = {"op": "put", "jobs": jobs, "gaps_s": gaps_s or [0] * len(jobs)}
        found: list[float] = (await self._ask(request, within_s))["at_s"]
        return found

    async def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None  # noqa: S101 (we asked for a pipe)
        self._process.stdin.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _STOP_GRACE_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def _ask(self, request: dict[str, Any], within_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 (we asked for a pipe)
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return await self._read(within_s)

    async def _read(self, within_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 (we asked for a pipe)
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), within_s)
            answer: dict[str, Any] = json.loads(line)
        except (TimeoutError, ValueError) as error:
            raise Failed(f"the producer does not answer:\n{last_words(self._log)}") from error
        return answer


def tree(roots: Iterable[int]) -> set[int]:
    """The processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    found: set[int] = set()
    ahead = list(roots)
    while ahead:
        pid = ahead.pop()
        if pid not in found:
            found.add(pid)
            ahead += children.get(pid, [])
    return found


def cpu_s(pids: Collection[int]) -> float:
    """CPU seconds of these processes and of their children that have ended."""
    ticks = 0
    for pid in pids:
        ticks += sum(int(field) for field in _stat(pid)[_TIMES])
    return ticks / _TICKS_PER_S


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()
