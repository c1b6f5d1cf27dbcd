"""Processes under test: one for each system, all with the same models, stopped while not in turn.

A stopped process (SIGSTOP) costs the others nothing, not even the polling of an idle server, and
needs no second start for its next turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from bench.engine.pictures import read_answer
from bench.engine.plan import Plan
from bench.engine.replay import Phase, Served, ask_all, judged
from bench.engine.trace import Arrival, Request, to_wire
from bench.queue.processes import Command, Failed, cpu_s, halt, start, tree
from easel_local.ports import free_port
from easel_local.process import Child, last_words, launcher

_ROOT = Path(__file__).parents[2]
_START_S = 300.0
_STOP_S = 5.0
_POLL_S = 0.1
_LINE_BYTES = 2**24
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True, slots=True)
class Place:
    """Where systems run and what they are given."""

    folder: Path
    """Of logs."""
    models_dir: Path
    models: Sequence[str]
    core: int
    site: Path | None
    """Packages of the peer, where there are some."""
    plan: Plan


class Host(Protocol):
    """A system that is up."""

    async def start(self, place: Place) -> None:
        """Loads all models and warms up.

        Raises:
            Failed: it does not come up.
        """
        ...

    async def play(self, arrivals: Sequence[Arrival]) -> Phase:
        """Serves a trace.

        Raises:
            Failed: it does not answer.
        """
        ...

    def pause(self) -> None:
        """Stops all its processes where they are."""
        ...

    def wake(self) -> None:
        """Lets them go on."""
        ...

    async def close(self) -> None:
        """Ends all its processes."""
        ...


def _command(module: str, place: Place, told: Mapping[str, object]) -> Command:
    argv = [sys.executable, "-m", f"bench.engine.hosts.{module}"]
    argv += ["--models-dir", str(place.models_dir), "--models", ",".join(place.models)]
    argv += ["--core", str(place.core)]
    for name, value in told.items():
        argv += [f"--{name}", str(value)]
    path = [str(_ROOT), *([str(place.site)] if place.site else [])]
    return Command(argv, {**_ONE_THREAD, "PYTHONPATH": os.pathsep.join(path)})


def _signal_group(leader: Process | Child, number: int) -> None:
    """Signals a process and all that it started, unless it has ended."""
    if leader.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, number)


class Piped:
    """A host that is told by lines on its stdin; see `protocol`."""

    def __init__(
        self, name: str, module: str, told: Callable[[Plan], Mapping[str, object]]
    ) -> None:
        """A module of `hosts` and its arguments."""
        self._name = name
        self._module = module
        self._told = told
        self._process: Process | None = None
        self._log = Path()
        self._patience_s = _START_S

    async def start(self, place: Place) -> None:
        """See `Host`."""
        command = _command(self._module, place, self._told(place.plan))
        self._log = place.folder / f"{self._name}.log"
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *launcher(command.argv),
                stdin=PIPE,
                stdout=PIPE,
                stderr=output,
                env=command.environment(),
                start_new_session=True,
                limit=_LINE_BYTES,
            )
        await self._read(_START_S)
        self._patience_s = place.plan.patience_s

    async def play(self, arrivals: Sequence[Arrival]) -> Phase:
        """See `Host`."""
        found: dict[str, Any] = await self.ask(op="play", arrivals=to_wire(arrivals))
        served = tuple(Served(**one) for one in found["served"])
        return Phase(found["wall_s"], found["cpu_s"], served)

    async def ask(self, **asked: object) -> Any:  # noqa: ANN401 (each op has an answer of its own)
        """Asks for an op of the host.

        Raises:
            Failed: it does not answer, or says that it could not.
        """
        process = self._running()
        assert process.stdin is not None  # noqa: S101 (we asked for a pipe)
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        return await self._read(self._patience_s)

    def pause(self) -> None:
        """See `Host`."""
        _signal_group(self._running(), signal.SIGSTOP)

    def wake(self) -> None:
        """See `Host`."""
        _signal_group(self._running(), signal.SIGCONT)

    async def close(self) -> None:
        """See `Host`."""
        if (process := self._process) is None:
            return
        assert process.stdin is not None  # noqa: S101 (we asked for a pipe)
        process.stdin.close()
        _signal_group(process, signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_S)
        _signal_group(process, signal.SIGKILL)
        await process.wait()

    def _running(self) -> Process:
        if self._process is None:
            raise Failed(f"{self._name} is not up")
        return self._process

    async def _read(self, within_s: float) -> Any:  # noqa: ANN401
        process = self._running()
        assert process.stdout is not None  # noqa: S101 (we asked for a pipe)
        try:
            line = await asyncio.wait_for(process.stdout.readline(), within_s)
            answer = json.loads(line)
        except (TimeoutError, ValueError) as error:
            _signal_group(process, signal.SIGKILL)  # a late answer would be taken for the next one
            raise Failed(f"{self._name} does not answer:\n{last_words(self._log)}") from error
        if isinstance(answer, dict) and "trouble" in answer:
            raise Failed(answer["trouble"])
        return answer


class Listening:
    """A host that is asked over HTTP on loopback."""

    def __init__(
        self, name: str, module: str, told: Callable[[Plan], Mapping[str, object]]
    ) -> None:
        """A module of `hosts` and its arguments; the port is chosen here."""
        self._name = name
        self._module = module
        self._told = told
        self._child: Child | None = None
        self._client = httpx.AsyncClient(limits=httpx.Limits(), trust_env=False)
        self._log = Path()

    async def start(self, place: Place) -> None:
        """See `Host`."""
        port = free_port()
        command = _command(self._module, place, {**self._told(place.plan), "port": port})
        self._log = place.folder / f"{self._name}.log"
        self._child = start(command, self._log)
        await self._client.aclose()
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            limits=httpx.Limits(),
            timeout=place.plan.patience_s,
            trust_env=False,
        )
        ends_s = time.monotonic() + _START_S
        while not await self._healthy():
            if self._child.returncode is not None or time.monotonic() > ends_s:
                raise Failed(f"{self._name} does not come up:\n{last_words(self._log)}")
            await asyncio.sleep(_POLL_S)

    async def play(self, arrivals: Sequence[Arrival]) -> Phase:
        """See `Host`."""
        pid = self._running().pid
        before_s, began_s = cpu_s(tree([pid])), time.monotonic()
        replies = await ask_all(arrivals, self._ask)
        ended_s, after_s = time.monotonic(), cpu_s(tree([pid]))
        return Phase(ended_s - began_s, after_s - before_s, judged(arrivals, replies, read_answer))

    def pause(self) -> None:
        """See `Host`."""
        _signal_group(self._running(), signal.SIGSTOP)

    def wake(self) -> None:
        """See `Host`."""
        _signal_group(self._running(), signal.SIGCONT)

    async def close(self) -> None:
        """See `Host`."""
        await self._client.aclose()
        if self._child is not None:
            _signal_group(self._child, signal.SIGCONT)
            await halt(self._child)

    async def _healthy(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await self._client.get("/health", timeout=_STOP_S)).is_success
        return False

    async def _ask(self, asked: Request) -> object:
        answer = await self._client.post("/predict", json=asdict(asked))
        answer.raise_for_status()
        return answer.json()

    def _running(self) -> Child:
        if self._child is None:
            raise Failed(f"{self._name} is not up")
        return self._child
