"""What other threads may ask of the engine's thread; taken between any two steps."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from easel_kit.errors import DomainError
from easel_kit.ids import AttemptId, ModelKey
from gpu_worker.engine.catalogue import Entry
from gpu_worker.engine.job import Order
from gpu_worker.engine.model import Part


@dataclass(frozen=True, slots=True)
class Begin:
    """Draw a job and tell its listener."""

    order: Order


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a job before its next step."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class Park:
    """Set a job aside; `done` hears its steps so far, or None where there is no such job."""

    attempt_id: AttemptId
    done: Callable[[int | None], None]


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with a parked job; `done` hears whether there is such a job."""

    attempt_id: AttemptId
    done: Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Load:
    """Bring a model into memory; `done` hears None or what went wrong."""

    key: ModelKey
    done: Callable[[DomainError | None], None]


@dataclass(frozen=True, slots=True)
class Unload:
    """Free a model's memory; `done` hears None or what went wrong."""

    key: ModelKey
    done: Callable[[DomainError | None], None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load has ended, with a model or with a reason for the catalogue."""

    entry: Entry
    part: Part | None
    reason: str = ""

    @property
    def key(self) -> ModelKey:
        """Of the model."""
        return self.entry.card.key


@dataclass(frozen=True, slots=True)
class Reread:
    """An unavailable model was looked at again; this is what was found."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Perform:
    """Do a piece of work that may not run beside a step; `done` has its result, or is cancelled."""

    done: Future[Part]
    work: Callable[[], Part]

    def __call__(self) -> None:
        """Does it."""
        if self.done.set_running_or_notify_cancel():
            try:
                self.done.set_result(self.work())
            except Exception as error:  # noqa: BLE001 (whoever waits for it decides)
                self.done.set_exception(error)


@dataclass(frozen=True, slots=True)
class Measure:
    """Learn what forwards of a loaded model cost by their rows; `done` hears when that is over."""

    key: ModelKey
    done: Callable[[DomainError | None], None]


@dataclass(frozen=True, slots=True)
class Close:
    """End all jobs and leave the thread."""


Command = Begin | Stop | Park | Resume | Load | Unload | Loaded | Reread | Perform | Measure | Close
