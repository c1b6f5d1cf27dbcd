"""One whole run: all systems up, each trace by each in rounds whose order rotates, then trials."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.engine import peer
from bench.engine.plan import TRACES, Plan
from bench.engine.results import Alone, Cancelled, Preemption, Results, Trials, Turn
from bench.engine.stage import Host, Listening, Piped, Place
from bench.engine.trace import burst, requests, stream
from bench.queue.processes import Failed

STOCK, STATIC, LITSERVE, EASEL, EASEL_HTTP = SYSTEMS = (
    "stock",
    "static",
    "litserve",
    "easel",
    "easel-http",
)
_SEED = 20_250

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pinning:
    """Which core the systems have, and which ask them."""

    systems: int
    askers: frozenset[int]

    @property
    def text(self) -> str:
        """For people."""
        if not self.askers:
            return "nothing is pinned: this system has no way to; one thread each"
        if self.askers == {self.systems}:
            return f"one core alone, number {self.systems}, for all; one thread each"
        askers = ", ".join(str(core) for core in sorted(self.askers))
        return (
            f"each system, all of its processes, on core {self.systems} with one thread, the "
            f"others stopped meanwhile; what asks over HTTP on core {askers}"
        )


@contextmanager
def pinned() -> Iterator[Pinning]:
    """Inside the block this process has every core but the last, which is for systems alone."""
    if not hasattr(os, "sched_getaffinity"):
        yield Pinning(0, frozenset())
        return
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    askers = frozenset(cores[:-1] or cores)
    os.sched_setaffinity(0, askers)
    try:
        yield Pinning(cores[-1], askers)
    finally:
        os.sched_setaffinity(0, before)


def _hosts(names: Sequence[str]) -> dict[str, Host]:
    def batches(plan: Plan) -> Mapping[str, object]:
        return {"batch": plan.batch, "window-s": plan.window_s}

    def slots(plan: Plan) -> Mapping[str, object]:
        return {"slots": plan.slots}

    known: dict[str, Host] = {
        STOCK: Piped(STOCK, "stock", lambda _: {"prepare": 1}),
        STATIC: Piped(STATIC, "stock", batches),
        LITSERVE: Listening(LITSERVE, "litserve_http", batches),
        EASEL: Piped(EASEL, "easel", slots),
        EASEL_HTTP: Listening(EASEL_HTTP, "easel_http", slots),
    }
    # stock sets the pace of all others
    return {name: host for name, host in known.items() if name in names or name == STOCK}


class Campaign:
    """Measures the systems and keeps what was found."""

    def __init__(self, folder: Path, plan: Plan, models: Sequence[str], say: Say) -> None:
        """Models, logs and packages go to folder; `say` is told how far it is."""
        self._folder = folder
        self._plan = plan
        self._models = models
        self._say = say
        self._up: dict[str, Host] = {}
        self.results = Results()
        self.pinning = Pinning(0, frozenset())

    async def run(self, names: Sequence[str]) -> None:
        """The whole of it; what fails is noted and the rest goes on.

        Raises:
            Failed: stock diffusers, which sets the pace, does not run.
        """
        async with AsyncExitStack() as stack:
            self.pinning = stack.enter_context(pinned())
            await self._start(stack, names)
            await self._calibrate()
            for number in range(self._plan.rounds):
                for model in self._models:
                    for trace in TRACES:
                        await self._round(number, model, trace)
            for model in self._models:
                await self._trials(model)
                await self._costs(model)

    # --- start

    async def _start(self, stack: AsyncExitStack, names: Sequence[str]) -> None:
        (self._folder / "logs").mkdir(parents=True, exist_ok=True)
        models_dir = self._folder / "models"  # stock, the first to start, makes it
        hosts = _hosts(names)
        place = Place(
            self._folder / "logs",
            models_dir,
            self._models,
            self.pinning.systems,
            await self._site(hosts),
            self._plan,
        )
        if LITSERVE in hosts and place.site is None:
            del hosts[LITSERVE]
        for name, host in hosts.items():
            self._say(f"start {name}")  # one by one: our engine measures its forwards meanwhile
            stack.push_async_callback(host.close)
            try:
                await host.start(place)
            except Failed as error:
                if name == STOCK:
                    raise
                self._note(name, error)
                continue
            host.pause()
            self._up[name] = host

    async def _site(self, hosts: Mapping[str, Host]) -> Path | None:
        if not {LITSERVE, EASEL_HTTP} & set(hosts):
            return None
        try:
            return await peer.install(self._folder)
        except Failed as error:
            self._note(LITSERVE, Failed(f"cannot be installed: {error}"))
            return None

    def _note(self, what: str, error: Exception) -> None:
        self._say(f"{what}: {error}")
        self.results.trouble.append(f"{what}: {error}")

    # --- traces

    async def _calibrate(self) -> None:
        host = self._up[STOCK]
        host.wake()
        for model in self._models:
            for trace in TRACES:
                chooser = random.Random(_SEED)
                asked = requests(trace, model, self._plan.calibration, chooser)
                phase = await host.play(burst(asked))
                rate = len(asked) / phase.wall_s
                self.results.capacity_per_s[model, trace] = rate
                self._say(f"stock, {model}, {trace}: {rate:.2f} requests/s one after another")
        host.pause()

    async def _round(self, number: int, model: str, trace: str) -> None:
        size = self._plan.sizes[trace]
        chooser = random.Random(_SEED + 1 + number)
        rate = self.results.capacity_per_s[model, trace] * self._plan.overload
        streamed = stream(requests(trace, model, size.stream, chooser), rate, chooser)
        at_once = burst(requests(trace, model, size.burst, chooser))
        names = list(self._up)
        turn_of = number % len(names)
        for name in (*names[turn_of:], *names[:turn_of]):
            host = self._up[name]
            host.wake()
            try:
                turn = Turn(await host.play(streamed), await host.play(at_once))
            except Failed as error:
                self._say(f"{name}: {error}")
                self.results.failed.append(
                    f"{model}, {trace}, {name}, all of round {number + 1}: {error}"
                )
                continue
            finally:
                host.pause()
            self.results.turns.setdefault((model, trace, name), []).append(turn)
            self._say(
                f"round {number + 1} of {self._plan.rounds}, {model}, {trace}: {name}: "
                f"{turn.per_cpu_s:.2f} requests per CPU-second"
            )

    # --- our engine alone, and single costs

    async def _trials(self, model: str) -> None:
        host = self._up.get(EASEL)
        if not isinstance(host, Piped):
            return
        found = self.results.trials.setdefault(model, Trials())
        plan = self._plan
        host.wake()
        try:
            self._say(f"{model}: one job alone, preemption, cancelling")
            for one in await self._ask(host, "alone", model, pairs=plan.pairs):
                found.alone.append(Alone(**one))
            for one in await self._ask(
                host, "preempt", model, busy=plan.busy, count=plan.preemptions
            ):
                found.preemptions.append(Preemption(**one))
            for one in await self._ask(host, "cancel", model, busy=plan.busy, count=plan.cancels):
                found.cancels.append(Cancelled(**{name: int(n) for name, n in one.items()}))
        finally:
            host.pause()

    async def _ask(self, host: Piped, op: str, model: str, **more: int) -> list[dict[str, float]]:
        try:
            found: list[dict[str, float]] = await host.ask(op=op, model=model, **more)
        except Failed as error:
            self._note(f"{EASEL}, {model}, {op}", error)
            return []
        return found

    async def _costs(self, model: str) -> None:
        host = self._up[STOCK]
        assert isinstance(host, Piped)  # noqa: S101 (see _hosts)
        host.wake()
        self._say(f"{model}: single costs")
        self.results.costs[model] = await host.ask(
            op="costs", model=model, repeats=self._plan.cost_repeats
        )
        host.pause()
