"""Pictures that a stock pipeline draws from end to end, one step at a time when it is told to.

Families whose denoiser has no per-row form run here. Their pipeline's own loop sits on a thread
that runs only while the engine's thread waits for it: one of both at a time uses the device. So
steps of such a job take turns with everybody else's, and it can be parked and stopped between any
two of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from gpu_worker.domain.drawing import Raster
from gpu_worker.domain.generation import Generation

_NAME = "pipeline"


class Abandoned(Exception):
    """Raised inside a pipeline whose picture nobody wants any more."""


@dataclass(slots=True)
class _Shared:
    """What both threads see, each only while it has its turn."""

    position: int = 0
    raster: Raster | None = None
    error: BaseException | None = None
    over: bool = False
    abandoned: bool = False


class WholeRun:
    """One picture of a stock pipeline. `advance` and `close` are the engine's thread's."""

    def __init__(self, steps: int, draw: Callable[[Callable[[], None]], Raster | None]) -> None:
        """Starts nothing.

        Args:
            steps: that it will take; `draw` may correct it before the first one is over.
            draw: runs the pipeline to its end; must call its argument after each step. None where
                some pixel is no number.
        """
        self.steps_total = steps
        self._draw = draw
        self._shared = _Shared()
        self._ours = threading.Semaphore(0)
        self._theirs = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    @property
    def position(self) -> int:
        """Steps done."""
        return self._shared.position

    @property
    def finished(self) -> bool:
        """Whether the pipeline has ended."""
        return self._shared.over

    @property
    def raster(self) -> Raster | None:
        """The picture, once finished."""
        return self._shared.raster

    def advance(self) -> None:
        """Lets the pipeline run to the end of its next step, or of itself after the last.

        Raises:
            Exception: what the pipeline raised.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=_NAME, daemon=True)
            self._thread.start()
        self._theirs.release()
        self._ours.acquire()
        if self._shared.error is not None:
            raise self._shared.error

    def close(self) -> None:
        """Ends the pipeline at its step boundary and waits for its thread. Idempotent."""
        if self._thread is None:
            return
        if not self._shared.over:
            self._shared.abandoned = True
            self._theirs.release()
        self._thread.join()

    def _run(self) -> None:
        self._theirs.acquire()
        try:
            if not self._shared.abandoned:
                with torch.no_grad():
                    self._shared.raster = self._draw(self._stepped)
        except Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 (raised again on the engine's thread)
            self._shared.error = error
        finally:
            self._shared.over = True
            self._ours.release()

    def _stepped(self) -> None:
        self._shared.position += 1
        if self._shared.position >= self.steps_total:
            return  # the last step: what follows belongs to the same turn
        self._ours.release()
        self._theirs.acquire()
        if self._shared.abandoned:
            raise Abandoned


@runtime_checkable
class WholeModel(Protocol):
    """A loaded model that only its own pipeline can run."""

    @property
    def size_bytes(self) -> int:
        """Parameters and buffers."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Number format of weights."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def move_to(self, device: torch.device) -> None:
        """Brings all weights to the device."""
        ...

    def begin(
        self, asked: Generation, inputs: Mapping[str, Raster], generator: torch.Generator
    ) -> WholeRun:
        """One picture; nothing runs yet.

        Raises:
            CannotDraw: the pipeline cannot do what is asked; says what.
        """
        ...
