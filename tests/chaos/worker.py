"""A light worker as a process of its own: speaks the work stream, and sleeps instead of drawing.

`python -m tests.chaos.worker NAME SLOTS SEED FOLDER DOOR DOOR…`. It behaves as the real one does:
dials any replica, keeps its attempts over lost streams, tells reports again until they are
acknowledged. Now and then it fails, hands back, says a thing twice, or insists on a lost attempt.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uuid_utils

from easel.common.v1 import generation_pb2, model_pb2
from easel.scheduler.v1 import lease_pb2 as wire
from easel.scheduler.v1.lease_pb2_grpc import LeaseServiceStub
from tests.chaos.records import Ack, Book, Cut, Outcome, Parked, Report, Start, Told, Welcomed

MODELS = ("shapes-64", "outlines-64")
STEPS = 8
PLANTED = "planted_"
"""Error codes of failures on purpose begin so."""

_DRAW_S = (0.05, 0.8)
_GREETING_S = 3.0
_REDIAL_S = (0.02, 0.3)
_TWICE, _INSIST = 0.03, 0.1
_FATES: tuple[tuple[Outcome, str, float], ...] = (
    ("succeeded", "", 0.91),
    ("failed", "transient", 0.03),
    ("unfit", "worker", 0.02),
    ("refused", "caller", 0.01),
    ("handed_back", "", 0.03),
)
_KINDS = {
    "transient": wire.FAILURE_KIND_TRANSIENT,
    "worker": wire.FAILURE_KIND_WORKER,
    "caller": wire.FAILURE_KIND_CALLER,
}
_GONE = (grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError, TimeoutError)


@dataclass(slots=True)
class _Held:
    work: wire.Assign
    task: asyncio.Task[None]
    report: wire.WorkRequest | None = None
    outcome: Outcome = "succeeded"
    code: str = ""
    going: asyncio.Event = field(default_factory=asyncio.Event)
    """Not parked."""

    @property
    def is_parked(self) -> bool:
        """It was set aside and has not ended."""
        return self.report is None and not self.going.is_set()


class Worker:
    """One process's conversation with whichever replica answers."""

    def __init__(self, name: str, slots: int, seed: int, book: Book) -> None:
        self._name = name
        self._slots = slots
        self._chance = random.Random(f"{seed}/{name}/{os.getpid()}")
        self._book = book
        self._held: dict[str, _Held] = {}
        self._outbox: asyncio.Queue[wire.WorkRequest] = asyncio.Queue()
        self._welcomed = False

    async def run(self, doors: list[str]) -> None:
        """Dials one replica after the other until the process is killed."""
        channels = {door: grpc.aio.insecure_channel(door, options=_OPTIONS) for door in doors}
        while True:
            door = self._chance.choice(doors)
            try:
                await self._converse(door, LeaseServiceStub(channels[door]))
            except _GONE as error:
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
                why = error.code().name if isinstance(error, grpc.aio.AioRpcError) else "silence"
                self._book.write(Cut(time.time(), self._name, os.getpid(), why))
            await asyncio.sleep(self._chance.uniform(*_REDIAL_S))

    async def _converse(self, door: str, stub: Any) -> None:  # noqa: ANN401 (a stub of grpc.aio)
        self._outbox = asyncio.Queue()
        named = list(self._held)
        call = stub.Work(self._requests(self._hello(named)))
        beating: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(_GREETING_S):
                first = await anext(aiter(call))
            welcome = first.welcome
            self._welcomed = True
            self._resume(named, welcome, door)
            beating = asyncio.create_task(self._beat(welcome.heartbeat_interval_ms / 1000 * 0.8))
            async for message in call:
                self._obey(message)
            self._book.write(Cut(time.time(), self._name, os.getpid(), "ended"))
        except StopAsyncIteration:
            self._book.write(Cut(time.time(), self._name, os.getpid(), "no welcome"))
        finally:
            if beating is not None:
                beating.cancel()
            call.cancel()

    async def _requests(self, hello: wire.WorkRequest) -> AsyncIterator[wire.WorkRequest]:
        outbox = self._outbox
        yield hello
        while True:
            yield await outbox.get()

    def _hello(self, named: list[str]) -> wire.WorkRequest:
        models = [
            model_pb2.Model(key=key, name=key, base="sd-1", type="main", loaded=True)
            for key in MODELS
        ]
        return wire.WorkRequest(
            hello=wire.Hello(
                worker_id=self._name,
                address="127.0.0.1:9",
                device="none",
                slots=self._slots,
                models=models,
                held_attempt_ids=named,
                can_park=True,
                returning=self._welcomed,
                parked_attempt_ids=[
                    attempt for attempt, held in self._held.items() if held.is_parked
                ],
            )
        )

    def _resume(self, named: list[str], welcome: wire.Welcome, door: str) -> None:
        kept = list(welcome.kept_attempt_ids)
        self._book.write(
            Welcomed(time.time(), self._name, os.getpid(), held=named, kept=kept, door=door)
        )
        for attempt in named:
            held = self._held.get(attempt)
            if held is None:
                continue
            if attempt not in kept:
                if held.report is not None and self._chance.random() < _INSIST:
                    self._tell(held, again=True)
                self._forget(attempt)
            elif held.report is not None:
                self._tell(held, again=True)
        for attempt in welcome.cancelled_attempt_ids:
            self._stop(attempt)
        self._offer()

    async def _beat(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            self._outbox.put_nowait(wire.WorkRequest(heartbeat=wire.Heartbeat()))

    # --- what it is told

    def _obey(self, message: wire.WorkResponse) -> None:
        match message.WhichOneof("message"):
            case "assign":
                self._begin(message.assign)
            case "cancel":
                self._stop(message.cancel.attempt_id)
            case "acknowledged":
                self._settled(message.acknowledged)
            case "park":
                self._park(message.park.attempt_id)
            case "resume":
                self._go_on(message.resume.attempt_id)
            case _:  # newer than this worker
                pass

    def _begin(self, work: wire.Assign) -> None:
        self._book.write(
            Start(
                time.time(),
                self._name,
                os.getpid(),
                work.attempt_id,
                work.job_id,
                work.user_id,
                work.attempt_number,
            )
        )
        task = asyncio.create_task(self._draw(work))
        held = self._held[work.attempt_id] = _Held(work, task)
        held.going.set()

    def _park(self, attempt: str) -> None:
        self._book.write(Parked(time.time(), self._name, os.getpid(), attempt, on=True))
        held = self._held.get(attempt)
        if held is None or held.report is not None:
            return
        held.going.clear()
        parked = wire.AttemptParked(attempt_id=attempt, steps_done=1)
        self._outbox.put_nowait(wire.WorkRequest(parked=parked))
        self._offer()

    def _go_on(self, attempt: str) -> None:
        self._book.write(Parked(time.time(), self._name, os.getpid(), attempt, on=False))
        held = self._held.get(attempt)
        if held is None or held.report is not None:
            return
        held.going.set()
        resumed = wire.AttemptResumed(attempt_id=attempt)
        self._outbox.put_nowait(wire.WorkRequest(resumed=resumed))
        self._offer()

    def _stop(self, attempt: str) -> None:
        self._book.write(Told(time.time(), self._name, os.getpid(), attempt))
        held = self._held.get(attempt)
        if held is None or held.report is not None:
            return
        held.task.cancel()
        held.outcome = "stopped"
        held.report = wire.WorkRequest(
            stopped=wire.AttemptStopped(attempt_id=attempt, steps_done=1)
        )
        self._tell(held)

    def _settled(self, answer: wire.Acknowledged) -> None:
        attempt = answer.attempt_id
        self._book.write(Ack(time.time(), self._name, os.getpid(), attempt, answer.accepted))
        held = self._held.get(attempt)
        if held is not None and held.report is not None and self._chance.random() < _TWICE:
            self._tell(held, again=True)  # the answer might have been lost
        self._forget(attempt)
        self._offer()

    def _forget(self, attempt: str) -> None:
        held = self._held.pop(attempt, None)
        if held is not None:
            held.task.cancel()

    # --- what it does and says

    async def _draw(self, work: wire.Assign) -> None:
        pause_s = self._chance.uniform(*_DRAW_S) / 3
        held = self._held[work.attempt_id]
        for step in (2, 5, STEPS):
            await asyncio.sleep(pause_s)
            await held.going.wait()
            self._outbox.put_nowait(
                wire.WorkRequest(
                    progress=wire.AttemptProgress(
                        attempt_id=work.attempt_id, step=step, steps=STEPS
                    )
                )
            )
        outcome, code, _ = self._chance.choices(_FATES, [weight for *_, weight in _FATES])[0]
        held.outcome, held.code = outcome, code and PLANTED + code
        held.report = self._ended(work, outcome, code)
        self._tell(held)
        if self._chance.random() < _TWICE:
            self._tell(held, again=True)
        self._offer()

    @staticmethod
    def _ended(work: wire.Assign, outcome: str, code: str) -> wire.WorkRequest:
        attempt = work.attempt_id
        match outcome:
            case "succeeded":
                return wire.WorkRequest(finished=_finished(work))
            case "handed_back":
                return wire.WorkRequest(hand_back=wire.HandBack(attempt_id=attempt))
            case _:
                return wire.WorkRequest(
                    failed=wire.AttemptFailed(
                        attempt_id=attempt,
                        kind=_KINDS[code],
                        code=PLANTED + code,
                        message="on purpose",
                        steps_done=3,
                    )
                )

    def _tell(self, held: _Held, *, again: bool = False) -> None:
        assert held.report is not None
        self._book.write(
            Report(
                time.time(),
                self._name,
                os.getpid(),
                held.work.attempt_id,
                held.outcome,
                held.code,
                again,
            )
        )
        self._outbox.put_nowait(held.report)

    def _offer(self) -> None:
        running = sum(held.report is None and not held.is_parked for held in self._held.values())
        free = max(0, self._slots - running)
        self._outbox.put_nowait(wire.WorkRequest(capacity=wire.Capacity(free_slots=free)))


def _finished(work: wire.Assign) -> wire.AttemptFinished:
    image = generation_pb2.Image(
        id=f"img_{uuid_utils.uuid7().hex}",
        object_key=f"users/{work.user_id}/jobs/{work.job_id}/{work.attempt_id}/0.png",
        width_px=64,
        height_px=64,
        media_type="image/png",
        size_bytes=1,
        sha256="0" * 64,
        seed=1,
    )
    return wire.AttemptFinished(
        attempt_id=work.attempt_id,
        images=[image],
        steps_done=STEPS,
        first_step_ms=20,
        total_ms=100,
    )


_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
)


def main() -> None:
    """Runs until killed."""
    name, slots, seed, folder, *doors = sys.argv[1:]
    book = Book(Path(folder) / f"{name}-{os.getpid()}.jsonl")
    with suppress(KeyboardInterrupt):
        asyncio.run(Worker(name, int(slots), int(seed), book).run(doors))


if __name__ == "__main__":
    main()
