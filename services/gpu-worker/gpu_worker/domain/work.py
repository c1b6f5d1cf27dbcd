"""What worker and scheduler say to each other on the work stream."""

from __future__ import annotations

from dataclasses import dataclass

from easel_kit.ids import AttemptId, ImageId, JobId, UserId, WorkerId
from gpu_worker.domain.drawing import FailureKind
from gpu_worker.domain.generation import Generation, ImageFormat
from gpu_worker.domain.model import ModelCard


@dataclass(frozen=True, slots=True)
class Profile:
    """Who this worker is, the same for all its connections."""

    worker_id: WorkerId
    lane: str
    slots: int
    version: str


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word on a stream.

    Attributes:
        profile: who it is.
        address: host:port of its own gRPC face, as others reach it.
        device: for people.
        models: the catalogue as it is now.
        held: attempts from before a lost stream.
        parked: of those, the ones that are set aside now.
        returning: this process has been welcomed before.
    """

    profile: Profile
    address: str
    device: str
    models: tuple[ModelCard, ...]
    held: tuple[AttemptId, ...]
    parked: tuple[AttemptId, ...] = ()
    returning: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Extends the leases of all that the worker holds."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many more attempts are welcome; replaces what was said before."""

    free_slots: int
    draining: bool


@dataclass(frozen=True, slots=True)
class AttemptProgress:
    """How far an attempt is; may be lost without harm."""

    attempt_id: AttemptId
    step: int
    steps: int
    preview: bytes = b""
    preview_media_type: str = ""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One picture in the object store."""

    id: ImageId
    object_key: str
    width_px: int
    height_px: int
    media_type: str
    size_bytes: int
    sha256: str
    seed: int
    thumbnail_object_key: str = ""


@dataclass(frozen=True, slots=True)
class AttemptFinished:
    """All pictures are stored."""

    attempt_id: AttemptId
    images: tuple[StoredImage, ...]
    steps_done: int
    first_step_ms: int
    total_ms: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt came to nothing."""

    attempt_id: AttemptId
    kind: FailureKind
    code: str
    message: str
    steps_done: int


@dataclass(frozen=True, slots=True)
class AttemptStopped:
    """The attempt ended because of a cancel."""

    attempt_id: AttemptId
    steps_done: int


@dataclass(frozen=True, slots=True)
class HandBack:
    """The attempt was not worked off and waits again."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class AttemptParked:
    """The attempt is set aside; it stays held."""

    attempt_id: AttemptId
    steps_done: int


@dataclass(frozen=True, slots=True)
class AttemptResumed:
    """The attempt goes on."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class ModelsChanged:
    """The catalogue, or what of it is in memory, is different now."""

    models: tuple[ModelCard, ...]


Report = AttemptFinished | AttemptFailed | AttemptStopped
"""How an attempt ended: kept, and sent again, until acknowledged."""

Message = (
    Hello
    | Heartbeat
    | Capacity
    | AttemptProgress
    | Report
    | HandBack
    | AttemptParked
    | AttemptResumed
    | ModelsChanged
)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The scheduler's answer to Hello; all held attempts that are not in `kept` are dropped."""

    heartbeat_interval_s: float
    lease_ttl_s: float
    kept: frozenset[AttemptId]
    cancelled: frozenset[AttemptId]


@dataclass(frozen=True, slots=True)
class Assign:
    """Work under a lease."""

    attempt_id: AttemptId
    job_id: JobId
    user_id: UserId
    generation: Generation
    attempt_number: int
    traceparent: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop at the next step."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class Park:
    """Set the attempt aside at its next step boundary, keep its progress, free its slot."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with a parked attempt at once, also above the slots."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The report is durable, or no longer wanted."""

    attempt_id: AttemptId
    accepted: bool


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no new work, finish or hand back what runs, then leave."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Work whose ids make no sense; answered with a failure, whatever the attempt is called."""

    attempt_id: AttemptId
    reason: str


Command = Assign | Cancel | Park | Resume | Acknowledged | Drain | Malformed


@dataclass(frozen=True, slots=True)
class Running:
    """One attempt at work, for operators."""

    job_id: JobId
    attempt_id: AttemptId
    model_key: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What the worker is and does right now."""

    profile: Profile
    device: str
    memory_used_bytes: int
    memory_total_bytes: int
    models: tuple[ModelCard, ...]
    running: tuple[Running, ...]
    draining: bool


_EXTENSIONS = {ImageFormat.PNG: "png", ImageFormat.WEBP: "webp", ImageFormat.JPEG: "jpg"}


def picture_key(work: Assign, index: int) -> str:
    """Object key of picture `index`, counted from 0; one attempt never overwrites another's."""
    return f"{_stem(work, index)}.{_EXTENSIONS[work.generation.output.format]}"


def thumbnail_key(work: Assign, index: int) -> str:
    """Object key of the small look at picture `index`."""
    return f"{_stem(work, index)}.thumb.webp"


def _stem(work: Assign, index: int) -> str:
    return f"users/{work.user_id}/jobs/{work.job_id}/{work.attempt_id}/{index}"
