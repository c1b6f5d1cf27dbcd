"""What the engine says of a job: progress on the way, one outcome at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class Raster:
    """Uncompressed pixels: rows from the top, three bytes (red, green, blue) a pixel."""

    width_px: int
    height_px: int
    rgb: bytes


@dataclass(frozen=True, slots=True)
class StepProgress:
    """Denoising steps done and to do over all pictures of a job, and at times a small look."""

    step: int
    steps: int
    preview: Raster | None = None


@dataclass(frozen=True, slots=True)
class DrawnPicture:
    """One finished picture and the seed that repeats it."""

    seed: int
    raster: Raster


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture as a file; `sha256` is lower-case hexadecimal."""

    data: bytes
    media_type: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What a job took of the device, for its summary line.

    Attributes:
        device_s: its share of all forwards and decodes that it was part of.
        mean_rows: rows of the forwards that it was part of, its neighbours' too, on average.
        first_step_s: from its arrival at the engine to the end of its first step; None: none ran.
        parked_s: how long it was set aside.
    """

    device_s: float = 0.0
    mean_rows: float = 0.0
    first_step_s: float | None = None
    parked_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """All pictures are there, in the order of their seeds."""

    pictures: tuple[DrawnPicture, ...]
    steps_done: int
    warnings: tuple[str, ...] = ()
    figures: Figures = field(default=Figures(), compare=False)


@dataclass(frozen=True, slots=True)
class Stopped:
    """Cancelled; no step ran after `steps_done`."""

    steps_done: int
    figures: Figures = field(default=Figures(), compare=False)


class FailureKind(Enum):
    """Whose fault it is, and so whether another try makes sense."""

    CALLER = "caller"
    TRANSIENT = "transient"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Failed:
    """There will be no pictures from this try; `message` is for the user."""

    kind: FailureKind
    code: str
    message: str
    steps_done: int = 0
    figures: Figures = field(default=Figures(), compare=False)


Outcome = Drawn | Stopped | Failed


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """The device and its memory in bytes, 0 where unknown; of the process on a CPU."""

    device: str
    memory_used_bytes: int
    memory_total_bytes: int
