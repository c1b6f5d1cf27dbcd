"""What an attempt took, for its one line in the log and for Prometheus. Never a prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram

from easel_kit.log import get_logger
from gpu_worker.domain.drawing import Figures

_log = get_logger(__name__)
_attempts = Counter("easel_worker_attempts", "Attempts that ended here.", ["outcome"])
_running = Gauge("easel_worker_running", "Attempts at work.")
_parked = Gauge("easel_worker_parked", "Attempts that are set aside.")
_first_step_seconds = Histogram(
    "easel_worker_first_step_seconds",
    "From an assignment to the end of its first step, in seconds.",
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120),
)
_upload_seconds = Histogram(
    "easel_worker_upload_seconds",
    "Encoding and storing all pictures of a job, in seconds.",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)


@dataclass(slots=True)
class Summary:
    """Filled while an attempt runs; times in seconds, sizes in bytes."""

    model: str
    steps: int = 0
    pictures: int = 0
    queue_s: float | None = None
    """From its assignment to the end of its first step; None while none has ended."""
    upload_s: float = 0.0
    size_bytes: int = 0
    figures: Figures = field(default_factory=Figures)

    def first_step(self, elapsed_s: float) -> None:
        """Its first step has ended, so long after the assignment; said once."""
        self.queue_s = elapsed_s
        _first_step_seconds.observe(elapsed_s)

    def uploaded(self, pictures: int, size_bytes: int, took_s: float) -> None:
        """All its pictures are stored."""
        self.pictures, self.size_bytes, self.upload_s = pictures, size_bytes, took_s
        _upload_seconds.observe(took_s)

    def write(self, outcome: str, *, running_s: float, parked_s: float) -> None:
        """Logs and counts the end; what is not known is not there."""
        _attempts.labels(outcome).inc()
        queue = {} if self.queue_s is None else {"queue_s": round(self.queue_s, 3)}
        _log.info(
            "attempt.finished",
            outcome=outcome,
            model=self.model,
            steps=self.steps,
            pictures=self.pictures,
            duration_s=round(running_s, 3),
            parked_s=round(parked_s, 3),
            device_s=round(self.figures.device_s, 3),
            mean_rows=round(self.figures.mean_rows, 2),
            upload_s=round(self.upload_s, 3),
            bytes=self.size_bytes,
            **queue,
        )


def gauge_held(*, running: int, parked: int) -> None:
    """How many attempts this process holds now."""
    _running.set(running)
    _parked.set(parked)
