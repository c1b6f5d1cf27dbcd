"""What a worker talks to, played by tests: engine, gallery and the scheduler's end of streams."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace

import grpc

from easel.common.v1 import generation_pb2
from easel.scheduler.v1 import lease_pb2, lease_pb2_grpc
from easel_kit.errors import DependencyDown, DomainError, InvalidState, NotFound
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
    Figures,
    Outcome,
    Raster,
    StepProgress,
    Stopped,
)
from gpu_worker.domain.generation import Generation, ImageFormat
from gpu_worker.domain.model import ModelCard, ModelDefaults, PictureSize
from gpu_worker.domain.work import (
    Acknowledged,
    Assign,
    AttemptFailed,
    AttemptFinished,
    AttemptParked,
    AttemptProgress,
    AttemptResumed,
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
    Park,
    Profile,
    Resume,
    Welcome,
)

SHAPES = ModelKey("shapes-64")
NO_FIGURES = Figures()
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

ABLE = replace(
    CARD, features=("image_to_image", "inpaint", "hires", "loras", "controls", "clip_skip")
)
"""The same model where it can do all that requests may ask for."""

INK = replace(CARD, key=ModelKey("ink"), name="Ink", type="lora", sizes=(), samplers=())
EDGES = replace(CARD, key=ModelKey("edges"), name="Edges", type="controlnet", sizes=(), samplers=())

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
    inputs: Mapping[str, Raster]
    tell: Callable[[StepProgress], None]
    outcome: asyncio.Future[Outcome]
    traceparent: str
    step: int = 0
    going: asyncio.Event = field(default_factory=asyncio.Event)
    """Not set while it is parked."""

    @property
    def steps(self) -> int:
        return self.generation.steps * self.generation.image_count


class ScriptedEngine:
    """Port `Engine` that draws when a test says so; `by_itself` makes it draw step by step.

    `boundary` can be cleared: it then comes to no step boundary, and nothing is parked or resumed.
    """

    def __init__(self, *cards: ModelCard, by_itself: bool = False) -> None:
        self.cards = cards or (CARD,)
        self.by_itself = by_itself
        self.asked: dict[AttemptId, _Asked] = {}
        self.boundary = asyncio.Event()
        self.boundary.set()
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
        asked = _Asked(generation, inputs, progressed, outcome, current_traceparent())
        asked.going.set()
        self.asked[attempt_id] = asked
        await self._tell()
        try:
            if self.by_itself:
                await self._draw(attempt_id, asked)
            return await asked.outcome
        finally:
            del self.asked[attempt_id]
            await self._tell()

    async def park(self, attempt_id: AttemptId) -> int | None:
        if attempt_id in self.asked:
            await self.boundary.wait()
        asked = self.asked.get(attempt_id)
        if asked is None or asked.outcome.done():
            return None
        asked.going.clear()
        return asked.step

    async def resume(self, attempt_id: AttemptId) -> bool:
        if attempt_id in self.asked:
            await self.boundary.wait()
        asked = self.asked.get(attempt_id)
        if asked is None or asked.outcome.done():
            return False
        asked.going.set()
        return True

    def cancel(self, attempt_id: AttemptId) -> None:
        asked = self.asked.get(attempt_id)
        if asked is not None and not asked.outcome.done():
            asked.outcome.set_result(Stopped(asked.step))
            asked.going.set()

    async def _draw(self, attempt_id: AttemptId, asked: _Asked) -> None:
        while asked.step < asked.steps:
            await asyncio.sleep(0)
            await asked.going.wait()
            if asked.outcome.done():
                return
            self.step(attempt_id)
        self.finish(attempt_id)

    # --- for tests

    async def drawing(self, *attempts: AttemptId) -> None:
        """Until exactly these are being drawn."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: set(self.asked) == set(attempts))

    def step(self, attempt_id: AttemptId, count: int = 1, look: Raster | None = None) -> None:
        """Some steps of an attempt."""
        asked = self.asked[attempt_id]
        assert asked.going.is_set(), "parked"
        asked.step += count
        asked.tell(StepProgress(asked.step, asked.steps, look))

    def finish(self, attempt_id: AttemptId, *warnings: str, figures: Figures = NO_FIGURES) -> None:
        """The rest of an attempt."""
        asked = self.asked[attempt_id]
        pictures = tuple(
            DrawnPicture(asked.generation.seed_of(index), raster(index))
            for index in range(asked.generation.image_count)
        )
        self.end(attempt_id, Drawn(pictures, asked.steps, warnings, figures))

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
    """Port `Gallery` over dictionaries.

    `down` makes it refuse everything and `down_for` uploads of keys with that end; `gate` holds
    encoding up, `fetch_gate` fetching; `most_stores` is how many uploads there were at a time.
    """

    def __init__(self) -> None:
        self.inputs: dict[str, Raster | DomainError] = {}
        self.stored: dict[str, EncodedPicture] = {}
        self.down = False
        self.down_for = ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.encoding = asyncio.Event()
        self.fetch_gate = asyncio.Event()
        self.fetch_gate.set()
        self.fetching: set[str] = set()
        self.most_fetching = 0
        self._stirred = asyncio.Event()
        self.stores = self.most_stores = 0

    async def fetch(self, key: str) -> Raster:
        self.fetching.add(key)
        self.most_fetching = max(self.most_fetching, len(self.fetching))
        self._stirred.set()
        try:
            await self.fetch_gate.wait()
        finally:
            self.fetching.discard(key)
            self._stirred.set()
        if self.down:
            raise DependencyDown("the object store does not answer")
        found = self.inputs.get(key, NotFound("object", key))
        if isinstance(found, DomainError):
            raise found
        return found

    async def fetches(self, count: int) -> None:
        """Until so many pictures are being fetched."""
        async with asyncio.timeout(5):
            while len(self.fetching) != count:
                self._stirred.clear()
                await self._stirred.wait()

    async def preview(self, raster: Raster) -> EncodedPicture:
        return _encoded(b"look", raster)

    async def thumbnail(self, raster: Raster) -> EncodedPicture:
        return _encoded(b"small", raster, "image/webp")

    async def encode(self, picture: DrawnPicture, generation: Generation) -> EncodedPicture:
        self.encoding.set()
        await self.gate.wait()
        head = f"{picture.seed} {generation.prompt} ".encode()
        return _encoded(head, picture.raster, _MEDIA_TYPES[generation.output.format])

    async def store(self, key: str, picture: EncodedPicture) -> None:
        self.stores += 1
        self.most_stores = max(self.most_stores, self.stores)
        await asyncio.sleep(0)
        self.stores -= 1
        if self.down or (self.down_for and key.endswith(self.down_for)):
            raise DependencyDown("the object store does not answer")
        self.stored[key] = picture


_MEDIA_TYPES = {
    ImageFormat.PNG: "image/png",
    ImageFormat.WEBP: "image/webp",
    ImageFormat.JPEG: "image/jpeg",
}


def _encoded(head: bytes, body: Raster, media_type: str = "image/png") -> EncodedPicture:
    data = head + body.rgb[:3]
    return EncodedPicture(data, media_type, hashlib.sha256(data).hexdigest())


_KINDS: dict[type, str] = {
    Hello: "hello",
    Heartbeat: "heartbeat",
    Capacity: "capacity",
    AttemptProgress: "progress",
    AttemptFinished: "finished",
    AttemptFailed: "failed",
    AttemptStopped: "stopped",
    AttemptParked: "parked",
    AttemptResumed: "resumed",
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
    answer: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: the greeting takes its time (in memory only)."""

    def __post_init__(self) -> None:
        self.answer.set()


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
        await greeting.answer.wait()
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


def command_to_wire(  # noqa: PLR0911 (one a command)
    command: Command,
) -> lease_pb2.WorkResponse:
    """What a scheduler would send."""
    response = lease_pb2.WorkResponse
    match command:
        case Assign():
            return response(assign=assign_to_wire(command))
        case Malformed(attempt_id, _):
            return response(assign=lease_pb2.Assign(attempt_id=attempt_id))
        case Cancel(attempt_id):
            return response(cancel=lease_pb2.Cancel(attempt_id=attempt_id))
        case Park(attempt_id):
            return response(park=lease_pb2.Park(attempt_id=attempt_id))
        case Resume(attempt_id):
            return response(resume=lease_pb2.Resume(attempt_id=attempt_id))
        case Acknowledged(attempt_id, accepted):
            return response(
                acknowledged=lease_pb2.Acknowledged(attempt_id=attempt_id, accepted=accepted)
            )
        case Drain():
            return response(drain=lease_pb2.Drain())


def assign_to_wire(work: Assign) -> lease_pb2.Assign:
    """Work as a scheduler would send it."""
    return lease_pb2.Assign(
        attempt_id=work.attempt_id,
        job_id=work.job_id,
        user_id=work.user_id,
        generation=generation_to_wire(work.generation),
        attempt_number=work.attempt_number,
        traceparent=work.traceparent,
    )


_WIRE_FORMATS = {
    ImageFormat.PNG: generation_pb2.IMAGE_FORMAT_PNG,
    ImageFormat.WEBP: generation_pb2.IMAGE_FORMAT_WEBP,
    ImageFormat.JPEG: generation_pb2.IMAGE_FORMAT_JPEG,
}


def generation_to_wire(asked: Generation) -> generation_pb2.Generation:
    """What a user asks for as a scheduler would send it."""
    begun, second = asked.init_image, asked.hires
    return generation_pb2.Generation(
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
        loras=[generation_pb2.Lora(**asdict(lora)) for lora in asked.loras],
        init_image=None if begun is None else generation_pb2.InitImage(**asdict(begun)),
        controls=[generation_pb2.Control(**asdict(control)) for control in asked.controls],
        hires=None if second is None else generation_pb2.Hires(**asdict(second)),
        output=generation_pb2.Output(
            format=_WIRE_FORMATS[asked.output.format],
            quality=asked.output.quality,
            without_settings=not asked.output.with_settings,
        ),
        clip_skip=asked.clip_skip,
    )
