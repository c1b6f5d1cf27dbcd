"""What is logged of a job: its ids, in its own trace, and nothing of what it draws."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from opentelemetry import trace
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from easel_kit.ids import ModelKey, UserId, WorkerId, new_attempt_id, new_job_id
from scheduler.domain.generation import Generation
from scheduler.domain.job import Job, JobError, JobState
from scheduler.domain.lease import Claim, Outcome, Settled
from scheduler.domain.line import Depth
from scheduler.domain.worker import Worker
from scheduler.observe import LoggingObserver

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
AT = datetime(2026, 1, 1, tzinfo=UTC)
PICTURE = Generation(ModelKey("m"), "a secret wish", "nothing", 64, 64, 10, 1.0, 1, "", 1)
JOB = Job(
    new_job_id(),
    UserId("alice"),
    JobState.QUEUED,
    PICTURE,
    1,
    1,
    AT,
    AT,
    traceparent=TRACEPARENT,
)
CLAIM = Claim(new_attempt_id(), JOB.id, JOB.user_id, WorkerId("w"), 1, AT)


def settled(state: JobState | None, *, changed: bool = True, **more: object) -> Settled:
    found = {"outcome": Outcome.LOST, "traceparent": TRACEPARENT, **more}
    return Settled(JOB.id, CLAIM, state, changed=changed, **found)  # type: ignore[arg-type]


def test_each_step_of_a_job_is_one_line_with_its_ids() -> None:
    observer = LoggingObserver("test")
    with capture_logs() as lines:
        observer.queued(JOB)
        observer.claimed(CLAIM, waited_s=-0.001, traceparent=TRACEPARENT)
        observer.cancel_requested(JOB)
        observer.settled(settled(JobState.QUEUED))
        observer.settled(settled(JobState.SUCCEEDED, changed=False))
        observer.settled(settled(JobState.FAILED, error=JobError("worker_lost", "lost")))
        observer.settled(Settled(JOB.id, None, JobState.CANCELLED, changed=True))
    assert [line["event"] for line in lines] == [
        "job.queued",
        "job.claimed",
        "job.cancel_requested",
        "job.requeued",
        "report.dropped",
        "job.failed",
        "job.cancelled",
    ]
    assert {line["job_id"] for line in lines} == {JOB.id}
    assert "secret" not in str(lines)
    assert lines[5]["error"] == "worker_lost"


def test_a_line_belongs_to_the_trace_of_the_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def trace_id(_name: str, **_fields: object) -> None:
        seen.append(trace.format_trace_id(trace.get_current_span().get_span_context().trace_id))

    for level in ("debug", "info"):
        monkeypatch.setattr(f"scheduler.observe._log.{level}", trace_id, raising=False)
    observer = LoggingObserver("test")
    observer.queued(JOB)
    observer.claimed(CLAIM, waited_s=0, traceparent=TRACEPARENT)
    observer.settled(settled(JobState.SUCCEEDED))
    assert seen == [TRACE] * 3


def test_the_queue_and_its_workers_are_measured() -> None:
    observer = LoggingObserver("measured")
    worker = Worker(WorkerId("w"), "ses", "", "cpu", 2, ())
    with capture_logs() as lines:
        observer.depth(Depth(waiting=3, running=2, workers=1, slots=2))
        observer.worker_joined(worker, kept=1)
        observer.worker_left(worker.id, lost=1)
        observer.trouble("claim", TimeoutError())
        observer.repaired("admitted", 4)
        observer.settled(settled(JobState.QUEUED))

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(f"easel_scheduler_{name}", {"lane": "measured", **labels})

    assert value("waiting_jobs") == 3
    assert value("repairs_total", what="admitted") == 4
    assert value("leases_lost_total") == 1
    assert value("attempts_ended_total", outcome="lost") == 1
    assert [line["event"] for line in lines] == [
        "worker.joined",
        "worker.left",
        "store.unreached",
        "queue.repaired",
        "job.requeued",
    ]
