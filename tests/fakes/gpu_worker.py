"""What a worker talks to, played by tests: engine, gallery and the scheduler's end of streams."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import grpc

from easel.common.v1 import generation_pb2
from easel.scheduler.v1 import lease_pb2, lease_pb2_grpc
from easel_kit.errors import DependencyDown, InvalidState, NotFound
from easel_kit.ids import (
    AttemptId,
    ModelKey,
    UserId,
    WorkerId,
    new_attempt_id,
    new_job_id,
)
from easel_kit.rpc.server import build_server
from easel_kit.telemetry import current_traceparent
from gpu_worker.clients.mapping import to_wire
from gpu_worker.domain.drawing import (
    DeviceStatus,
    Drawn,
    DrawnPicture,
    EncodedPicture,
    Outcome,
    Raster,
    StepProgress,
    Stopped,
)
from gpu_worker.domain.generation import Generation
from gpu_worker.domain.model import ModelCard, ModelDefaults, PictureSize
from gpu_worker.domain.work import (
    Acknowledged,
    Assign,
    AttemptFailed,
    AttemptFinished,
    AttemptProgress,
    AttemptStopped,
    Cancel,
    Capacity,
    Command,
    Drain,
    HandBack,
    Heartbeat,
    Hello,
    Malformed,
    Message,
    ModelsChanged,
    Profile,
    Welcome,
)

SHAPES = ModelKey("shapes-64")
ALICE = UserId("alice")

CARD = ModelCard(
    key=SHAPES,
    name="Shapes 64",
    base="sd-1",
    type="main",
    description="Draws shapes.",
    licence="MIT",
    defaults=ModelDefaults(10, 2.5, 64, 64, "ddim"),
    sizes=(PictureSize(64, 64),),
    max_steps=100,
    max_prompt_tokens=22,
    samplers=("ddim", "euler"),
    loaded=True,
)

PROFILE = Profile(WorkerId("wrk_test"), lane="default", slots=2, version="0")


def generation(**changes: object) -> Generation:
    """Ten cheap steps, with changes."""
    plain = Generation(
        model_key=SHAPES,
        prompt="a red circle on a white background",
        negative_prompt="",
        width_px=64,
        height_px=64,
        steps=10,
        guidance=2.5,
        seed=7,
        sampler="ddim",
        image_count=1,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def assign(**changes: object) -> Assign:
    """Work under a fresh lease, with changes of the generation."""
    return Assign(
        attempt_id=new_attempt_id(),
        job_id=new_job_id(),
        user_id=ALICE,
        generation=generation(**changes),
        attempt_number=1,
        traceparent="",
    )


def raster(shade: int = 128, width_px: int = 64, height_px: int = 64) -> Raster:
    """One plain colour."""
    return Raster(width_px, height_px, bytes([shade]) * (3 * width_px * height_px))


@dataclass(slots=True)
class _Asked:
    generation: Generation
    tell: Callable[[StepProgress], None]
    outcome: asyncio.Future[Outcome]
    traceparent: str
    step: int = 0

    @property
    def steps(self) -> int:
        return self.generation.steps * self.generation.image_count


class ScriptedEngine:
    """Port `Engine` that draws when a test says so; `by_itself` makes it draw at once."""

    def __init__(self, *cards: ModelCard, by_itself: bool = False) -> None:
        self.cards = cards or (CARD,)
        self.by_itself = by_itself
        self.asked: dict[AttemptId, _Asked] = {}
        self._changed = asyncio.Condition()

    def models(self) -> tuple[ModelCard, ...]:
        return self.cards

    def status(self) -> DeviceStatus:
        return DeviceStatus("cpu", 1, 2)

    async def load(self, key: ModelKey) -> ModelCard:
        return self._set_loaded(key, loaded=True)

    async def unload(self, key: ModelKey) -> ModelCard:
        if any(asked.generation.model_key == key for asked in self.asked.values()):
            raise InvalidState(f"model {key} is in use")
        return self._set_loaded(key, loaded=False)

    async def draw(
        self,
        attempt_id: AttemptId,
        generation: Generation,
        inputs: Mapping[str, Raster],
        progressed: Callable[[StepProgress], None],
    ) -> Outcome:
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        asked = _Asked(generation, progressed, outcome, current_traceparent())
        self.asked[attempt_id] = asked
        if self.by_itself:
            self.step(attempt_id, asked.steps)
            self.finish(attempt_id)
        await self._tell()
        try:
            return await asked.outcome
        finally:
            del self.asked[attempt_id]
            await self._tell()

    def cancel(self, attempt_id: AttemptId) -> None:
        asked = self.asked.get(attempt_id)
        if asked is not None and not asked.outcome.done():
            asked.outcome.set_result(Stopped(asked.step))

    # --- for tests

    async def drawing(self, *attempts: AttemptId) -> None:
        """Until exactly these are being drawn."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: set(self.asked) == set(attempts))

    def step(self, attempt_id: AttemptId, count: int = 1, look: Raster | None = None) -> None:
        """Some steps of an attempt."""
        asked = self.asked[attempt_id]
        asked.step += count
        asked.tell(StepProgress(asked.step, asked.steps, look))

    def finish(self, attempt_id: AttemptId, *warnings: str) -> None:
        """The rest of an attempt."""
        asked = self.asked[attempt_id]
        pictures = tuple(
            DrawnPicture(asked.generation.seed_of(index), raster(index))
            for index in range(asked.generation.image_count)
        )
        self.end(attempt_id, Drawn(pictures, asked.steps, warnings))

    def end(self, attempt_id: AttemptId, outcome: Outcome) -> None:
        """Any end."""
        self.asked[attempt_id].outcome.set_result(outcome)

    def fault(self, attempt_id: AttemptId) -> None:
        """An end that no engine should have."""
        self.asked[attempt_id].outcome.set_exception(RuntimeError("planted"))

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _set_loaded(self, key: ModelKey, *, loaded: bool) -> ModelCard:
        for card in self.cards:
            if card.key == key:
                changed = replace(card, loaded=loaded)
                self.cards = tuple(changed if one is card else one for one in self.cards)
                return changed
        raise NotFound("model", key)


class MemoryGallery:
    """Port `Gallery` over a dictionary; `down` makes it refuse, `gate` holds uploads up."""

    def __init__(self) -> None:
        self.stored: dict[str, EncodedPicture] = {}
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.encoding = asyncio.Event()

    async def preview(self, raster: Raster) -> EncodedPicture:
        return _encoded(b"look", raster)

    async def encode(self, picture: DrawnPicture, generation: Generation) -> EncodedPicture:
        self.encoding.set()
        await self.gate.wait()
        return _encoded(f"{picture.seed} {generation.prompt} ".encode(), picture.raster)

    async def store(self, key: str, picture: EncodedPicture) -> None:
        if self.down:
            raise DependencyDown("the object store does not answer")
        self.stored[key] = picture


def _encoded(head: bytes, body: Raster) -> EncodedPicture:
    data = head + body.rgb[:3]
    return EncodedPicture(data, "image/png", hashlib.sha256(data).hexdigest())


_KINDS: dict[type, str] = {
    Hello: "hello",
    Heartbeat: "heartbeat",
    Capacity: "capacity",
    AttemptProgress: "progress",
    AttemptFinished: "finished",
    AttemptFailed: "failed",
    AttemptStopped: "stopped",
    HandBack: "hand_back",
    ModelsChanged: "models_changed",
}


class Talk:
    """The scheduler's end of one stream, whatever carries it: wire messages both ways."""

    def __init__(self, hello: lease_pb2.Hello) -> None:
        self.hello = hello
        self.heard: asyncio.Queue[lease_pb2.WorkRequest] = asyncio.Queue()
        self.answers: asyncio.Queue[Command | None] = asyncio.Queue()
        self.over = asyncio.Event()

    async def hear(
        self, *kinds: str, skip: tuple[str, ...] = ("heartbeat",)
    ) -> lease_pb2.WorkRequest:
        """The next message of one of these kinds; others than `skip` may not come before it."""
        async with asyncio.timeout(10):
            while True:
                message = await self.heard.get()
                kind = str(message.WhichOneof("message"))
                if kind in kinds:
                    return message
                assert kind in skip, f"{message} instead of {kinds}"

    async def hear_at_last(self, kind: str) -> lease_pb2.WorkRequest:
        """The next message of this kind, whatever comes before it."""
        return await self.hear(kind, skip=tuple(_KINDS.values()))

    def say(self, command: Command) -> None:
        """One command."""
        self.answers.put_nowait(command)

    async def obeyed(self) -> None:
        """Until the worker has taken all commands from a stream in memory."""
        for _ in range(1 + 2 * self.answers.qsize()):
            await asyncio.sleep(0)
        assert self.answers.empty()

    def lose(self) -> None:
        """The stream breaks."""
        self.answers.put_nowait(None)


@dataclass(slots=True)
class Greeting:
    """How a scheduler answers Hello; `keep` None keeps all that is held."""

    heartbeat_interval_s: float = 30.0
    keep: frozenset[AttemptId] | None = None
    cancelled: frozenset[AttemptId] = frozenset()
    refusals: int = 0
    """Dials that are refused before one is answered."""


@dataclass(slots=True)
class Desk:
    """Where a fake scheduler's streams arrive."""

    greeting: Greeting = field(default_factory=Greeting)
    arrivals: asyncio.Queue[Talk] = field(default_factory=asyncio.Queue)
    dials: int = 0

    async def dialled(self) -> Talk:
        """The next stream."""
        async with asyncio.timeout(10):
            return await self.arrivals.get()

    def admit(self) -> None:
        """Counts a dial, refuses it if it shall be refused.

        Raises:
            DependencyDown: refused.
        """
        self.dials += 1
        if self.greeting.refusals > 0:
            self.greeting.refusals -= 1
            raise DependencyDown("no scheduler here")


class MemoryScheduler:
    """Port `Scheduler` without a wire."""

    def __init__(self) -> None:
        self.desk = Desk()

    @asynccontextmanager
    async def connect(self, hello: Message) -> AsyncIterator[MemoryStream]:
        self.desk.admit()
        assert isinstance(hello, Hello)
        greeting = self.desk.greeting
        talk = Talk(_wire(hello).hello)
        self.desk.arrivals.put_nowait(talk)
        held = frozenset(hello.held)
        welcome = Welcome(
            heartbeat_interval_s=greeting.heartbeat_interval_s,
            lease_ttl_s=3 * greeting.heartbeat_interval_s,
            kept=held if greeting.keep is None else greeting.keep & held,
            cancelled=greeting.cancelled & held,
        )
        try:
            yield MemoryStream(welcome, talk)
        finally:
            talk.over.set()


class MemoryStream:
    """Port `WorkStream` without a wire."""

    def __init__(self, welcome: Welcome, talk: Talk) -> None:
        self._welcome = welcome
        self._talk = talk
        self._lost = False

    @property
    def welcome(self) -> Welcome:
        return self._welcome

    async def send(self, message: Message) -> None:
        if self._lost:
            raise DependencyDown("lost")
        self._talk.heard.put_nowait(_wire(message))
        await asyncio.sleep(0)

    async def receive(self) -> Command:
        command = await self._talk.answers.get()
        if command is None:
            self._lost = True
            raise DependencyDown("lost")
        return command

    async def finish(self) -> None:
        self._talk.over.set()


def _wire(message: Message) -> lease_pb2.WorkRequest:
    # the real adapter's mapping has its own tests; here it only gives both fakes one language
    return to_wire(message)


class LeaseServicer(lease_pb2_grpc.LeaseServiceServicer):
    """`LeaseService` as a test plays it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def Work(  # noqa: N802 (gRPC's name)
        self,
        request_iterator: AsyncIterator[lease_pb2.WorkRequest],
        context: grpc.aio.ServicerContext[
            AsyncIterator[lease_pb2.WorkRequest], AsyncIterator[lease_pb2.WorkResponse]
        ],
    ) -> AsyncIterator[lease_pb2.WorkResponse]:
        self._desk.admit()
        first = await anext(request_iterator)
        assert first.WhichOneof("message") == "hello"
        talk = Talk(first.hello)
        greeting = self._desk.greeting
        held = frozenset(AttemptId(one) for one in first.hello.held_attempt_ids)
        yield lease_pb2.WorkResponse(
            welcome=lease_pb2.Welcome(
                heartbeat_interval_ms=round(greeting.heartbeat_interval_s * 1000),
                lease_ttl_ms=round(greeting.heartbeat_interval_s * 3000),
                kept_attempt_ids=held if greeting.keep is None else greeting.keep & held,
                cancelled_attempt_ids=greeting.cancelled & held,
            )
        )
        self._desk.arrivals.put_nowait(talk)
        listening = asyncio.ensure_future(_listen(request_iterator, talk))
        try:
            while True:
                answer = asyncio.ensure_future(talk.answers.get())
                await asyncio.wait({listening, answer}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    answer.cancel()
                    return
                command = answer.result()
                if command is None:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "planted loss")
                yield command_to_wire(command)
        finally:
            listening.cancel()
            talk.over.set()


async def _listen(requests: AsyncIterator[lease_pb2.WorkRequest], talk: Talk) -> None:
    async for request in requests:
        talk.heard.put_nowait(request)


@asynccontextmanager
async def serve_lease_service() -> AsyncIterator[tuple[Desk, str]]:
    """A `LeaseService` on a free port; its desk and address."""
    desk = Desk()
    server = build_server()
    lease_pb2_grpc.add_LeaseServiceServicer_to_server(LeaseServicer(desk), server.grpc)
    async with server.serving("127.0.0.1:0", [], grace_s=0.1):
        yield desk, f"127.0.0.1:{server.port}"


def command_to_wire(command: Command) -> lease_pb2.WorkResponse:
    """What a scheduler would send."""
    response = lease_pb2.WorkResponse
    match command:
        case Assign():
            return response(assign=assign_to_wire(command))
        case Malformed(attempt_id, _):
            return response(assign=lease_pb2.Assign(attempt_id=attempt_id))
        case Cancel(attempt_id):
            return response(cancel=lease_pb2.Cancel(attempt_id=attempt_id))
        case Acknowledged(attempt_id, accepted):
            return response(
                acknowledged=lease_pb2.Acknowledged(attempt_id=attempt_id, accepted=accepted)
            )
        case Drain():
            return response(drain=lease_pb2.Drain())


def assign_to_wire(work: Assign) -> lease_pb2.Assign:
    """Work as a scheduler would send it."""
    asked = work.generation
    return lease_pb2.Assign(
        attempt_id=work.attempt_id,
        job_id=work.job_id,
        user_id=work.user_id,
        generation=generation_pb2.Generation(
            model_key=asked.model_key,
            prompt=asked.prompt,
            negative_prompt=asked.negative_prompt,
            width_px=asked.width_px,
            height_px=asked.height_px,
            steps=asked.steps,
            guidance=asked.guidance,
            seed=asked.seed,
            sampler=asked.sampler,
            image_count=asked.image_count,
        ),
        attempt_number=work.attempt_number,
        traceparent=work.traceparent,
    )
