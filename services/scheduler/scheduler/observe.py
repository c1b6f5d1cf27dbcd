"""What happens to jobs, told as logs in the job's own trace and as metrics.

A job is one line at its end, with how long it waited and ran; its steps before are for debugging.

Labels are closed sets: the lane of this process, outcomes of the code, tiers of the plans, and
models that some worker has.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import DEBUG

from prometheus_client import Counter, Gauge, Histogram

from easel_kit.ids import WorkerId
from easel_kit.log import get_logger
from easel_kit.telemetry import joined, span
from scheduler.domain.job import Job
from scheduler.domain.lease import Claim, Outcome, Settled
from scheduler.domain.line import Depth
from scheduler.domain.load import Load, Reading
from scheduler.domain.worker import Worker

_log = get_logger(__name__)

_queued = Counter("easel_scheduler_jobs_queued", "Jobs accepted.", ["lane"])
_ended = Counter("easel_scheduler_jobs_ended", "Jobs that ended.", ["lane", "state"])
_claims = Counter("easel_scheduler_claims", "Attempts given to workers.", ["lane"])
_attempts = Counter("easel_scheduler_attempts_ended", "Attempts that ended.", ["lane", "outcome"])
_expiries = Counter(
    "easel_scheduler_leases_lost", "Attempts taken from workers that died or hung.", ["lane"]
)
_parks = Counter(
    "easel_scheduler_parks", "Attempts set aside for jobs of higher priority.", ["lane"]
)
_rests = Counter(
    "easel_scheduler_worker_rests", "Pauses of workers that could not go on.", ["lane"]
)
_repairs = Counter("easel_scheduler_repairs", "Jobs put right in the queue.", ["lane", "what"])
_rebuilds = Counter(
    "easel_scheduler_rebuilds", "Times that the queue was lost and filled again.", ["lane"]
)
_troubles = Counter("easel_scheduler_troubles", "Calls to a store that failed.", ["lane", "what"])
_waiting = Gauge("easel_scheduler_waiting_jobs", "Jobs in line.", ["lane"])
_running = Gauge("easel_scheduler_running_jobs", "Jobs under a lease.", ["lane"])
_workers = Gauge("easel_scheduler_workers", "Connected workers.", ["lane"])
_slots = Gauge("easel_scheduler_slots", "Attempts that connected workers can run.", ["lane"])
_waiting_work = Gauge(
    "easel_scheduler_waiting_work_seconds", "Work in line, in seconds of one slot.", ["lane"]
)
_oldest = Gauge(
    "easel_scheduler_oldest_waiting_seconds", "Age of the job that waited longest.", ["lane"]
)
_busy = Gauge("easel_scheduler_busy_share", "Running jobs over slots, 0 to 1.", ["lane"])
_backlog = Gauge(
    "easel_scheduler_backlog_seconds_per_worker",
    "Waiting work over workers times their measured rate: what autoscaling follows.",
    ["lane"],
)
_by_model = {
    "waiting": Gauge("easel_scheduler_model_waiting_jobs", "Jobs in line.", ["lane", "model"]),
    "running": Gauge("easel_scheduler_model_running_jobs", "Jobs drawn.", ["lane", "model"]),
    "workers": Gauge(
        "easel_scheduler_model_workers", "Workers that can draw it.", ["lane", "model"]
    ),
    "waiting_s": Gauge(
        "easel_scheduler_model_waiting_work_seconds",
        "Work in line, in seconds of one slot.",
        ["lane", "model"],
    ),
    "oldest_waiting_s": Gauge(
        "easel_scheduler_model_oldest_waiting_seconds",
        "Age of the job that waited longest.",
        ["lane", "model"],
    ),
    "backlog_s": Gauge(
        "easel_scheduler_model_backlog_seconds_per_worker",
        "Waiting work over workers that can draw it times their measured rate.",
        ["lane", "model"],
    ),
}
_by_tier = {
    "waiting": Gauge("easel_scheduler_tier_waiting_jobs", "Jobs in line.", ["lane", "tier"]),
    "running": Gauge("easel_scheduler_tier_running_jobs", "Jobs drawn.", ["lane", "tier"]),
    "waiting_users": Gauge(
        "easel_scheduler_tier_waiting_users", "Users with a job in line.", ["lane", "tier"]
    ),
}
_wait_s = Histogram(
    "easel_scheduler_wait_seconds",
    "Seconds from acceptance to a claim.",
    ["lane"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 1800, 7200),
)
_run_s = Histogram(
    "easel_scheduler_run_seconds",
    "Seconds from a claim to the job's end.",
    ["lane"],
    buckets=(0.05, 0.2, 1, 3, 10, 30, 60, 120, 300, 900),
)


class LoggingObserver:
    """`ports.Observer` with structlog, Prometheus and OpenTelemetry."""

    def __init__(self, lane: str) -> None:
        """`lane` labels every metric."""
        self._lane = lane
        self._shown: set[tuple[Gauge, str]] = set()

    def queued(self, job: Job) -> None:
        """See `ports.Observer`."""
        _queued.labels(self._lane).inc()
        if _log.is_enabled_for(DEBUG):
            with joined(job.traceparent):
                _log.debug("job.queued", job_id=job.id, user_id=job.user_id, cost_ms=job.cost_ms)

    def claimed(self, claim: Claim, *, waited_s: float, traceparent: str) -> None:
        """See `ports.Observer`."""
        _claims.labels(self._lane).inc()
        _wait_s.labels(self._lane).observe(max(0.0, waited_s))
        if _log.is_enabled_for(DEBUG):
            with joined(traceparent):
                _log.debug("job.claimed", **_ids(claim), waited_s=round(waited_s, 3))

    def settled(self, settled: Settled) -> None:
        """See `ports.Observer`."""
        if settled.outcome is not None:
            _attempts.labels(self._lane, settled.outcome.value).inc()
            if settled.outcome in {Outcome.LOST, Outcome.FORGOTTEN} and settled.changed:
                _expiries.labels(self._lane).inc()
        fields: dict[str, object] = {"job_id": settled.job_id, "outcome": settled.outcome}
        if settled.claim is not None:
            fields |= _ids(settled.claim)
        if settled.error is not None:
            fields["error"] = settled.error.code
        with joined(settled.traceparent):
            if settled.ended and settled.state is not None:
                _ended.labels(self._lane, settled.state.value).inc()
                if settled.claim is not None:
                    _run_s.labels(self._lane).observe(max(0.0, settled.lasted_s))
                _log.info(
                    f"job.{settled.state.value}",
                    **fields,
                    steps_done=settled.steps_done,
                    waited_s=round(settled.waited_s, 3),
                    lasted_s=round(settled.lasted_s, 3),
                )
            elif settled.changed:
                _log.info("job.requeued", **fields)
            else:
                _log.info("report.dropped", **fields)

    def cancel_requested(self, job: Job) -> None:
        """See `ports.Observer`."""
        with span("job.cancel", traceparent=job.traceparent):
            _log.info("job.cancel_requested", job_id=job.id, user_id=job.user_id)

    def parked(self, claim: Claim) -> None:
        """See `ports.Observer`."""
        _parks.labels(self._lane).inc()
        _log.info("attempt.parked", **_ids(claim))

    def resumed(self, claim: Claim) -> None:
        """See `ports.Observer`."""
        _log.info("attempt.resumed", **_ids(claim))

    def worker_joined(self, worker: Worker, *, kept: int) -> None:
        """See `ports.Observer`."""
        models = len(worker.models)
        _log.info(
            "worker.joined", worker_id=worker.id, slots=worker.slots, models=models, kept=kept
        )

    def worker_left(self, worker_id: WorkerId, *, lost: int) -> None:
        """See `ports.Observer`."""
        _log.info("worker.left", worker_id=worker_id, lost=lost)

    def worker_rests(self, worker_id: WorkerId, *, pause_s: float) -> None:
        """See `ports.Observer`."""
        _rests.labels(self._lane).inc()
        _log.warning("worker.rested", worker_id=worker_id, pause_s=round(pause_s, 3))

    def trouble(self, what: str, error: Exception) -> None:
        """See `ports.Observer`."""
        _troubles.labels(self._lane, what).inc()
        _log.warning("store.unreached", what=what, reason=str(error) or type(error).__name__)

    def rebuilt(self, count: int, *, took_s: float) -> None:
        """See `ports.Observer`."""
        _rebuilds.labels(self._lane).inc()
        _log.warning("queue.rebuilt", jobs=count, took_s=round(took_s, 3))

    def repaired(self, what: str, count: int) -> None:
        """See `ports.Observer`."""
        _repairs.labels(self._lane, what).inc(count)
        _log.warning("queue.repaired", what=what, count=count)

    def depth(self, depth: Depth) -> None:
        """See `ports.Observer`."""
        _waiting.labels(self._lane).set(depth.waiting)
        _running.labels(self._lane).set(depth.running)
        _workers.labels(self._lane).set(depth.workers)
        _slots.labels(self._lane).set(depth.slots)

    def measured(self, load: Load, readings: Sequence[Reading]) -> None:
        """See `ports.Observer`. What is no longer there is no longer shown."""
        for reading in readings:
            if reading.model_key is None:
                _waiting_work.labels(self._lane).set(reading.waiting_s)
                _oldest.labels(self._lane).set(reading.oldest_waiting_s)
                _busy.labels(self._lane).set(reading.busy_share)
                _backlog.labels(self._lane).set(reading.backlog_s)
        shown = [
            (gauge, str(reading.model_key), getattr(reading, name))
            for reading in readings
            if reading.model_key is not None
            for name, gauge in _by_model.items()
        ] + [
            (gauge, str(tier.priority), getattr(tier, name))
            for tier in load.tiers
            for name, gauge in _by_tier.items()
        ]
        for gauge, label, value in shown:
            gauge.labels(self._lane, label).set(value)
        now = {(gauge, label) for gauge, label, _ in shown}
        for gauge, label in self._shown - now:
            gauge.remove(self._lane, label)
        self._shown = now


def _ids(claim: Claim) -> dict[str, object]:
    return {
        "job_id": claim.job_id,
        "user_id": claim.user_id,
        "attempt_id": claim.attempt_id,
        "attempt": claim.number,
        "worker_id": claim.worker_id,
    }
