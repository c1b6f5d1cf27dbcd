"""Rows of the jobs table as values, and the columns that they need."""

from __future__ import annotations

import asyncpg

from easel_kit.ids import AttemptId, BatchId, JobId, ModelKey, UserId, WorkerId
from scheduler.domain.job import Job, JobError, JobState
from scheduler.domain.lease import Claim
from scheduler.domain.line import Admission
from scheduler.domain.policy import Share
from scheduler.storage.codec import images_from_json
from scheduler.storage.generations import generation_from_json

JOB = """
    jobs.id, jobs.user_id, jobs.state, jobs.generation, jobs.cost_ms, jobs.place, jobs.queued_at,
    jobs.start_by, jobs.claimed_at, jobs.first_step_at, jobs.finished_at, jobs.steps_done,
    jobs.error_code, jobs.error_message, jobs.attempts, jobs.attempt_id, jobs.cancel_requested,
    jobs.traceparent, jobs.batch_id, jobs.retry_of, jobs.lane, jobs.front,
    jobs.hidden_at IS NOT NULL AS is_hidden, results.images, results.warnings
"""

JOB_FROM = "jobs LEFT JOIN results ON results.job_id = jobs.id"

ADMISSION = """
    jobs.id, jobs.user_id, jobs.generation ->> 'model_key' AS model_key, jobs.cost_ms, jobs.place,
    jobs.attempts, jobs.start_by, jobs.state, jobs.attempt_id, jobs.front, jobs.not_before,
    open_jobs.version,
    open_jobs.priority, open_jobs.weight, open_jobs.max_running, attempts.worker_id,
    attempts.number, attempts.claimed_at
"""

ADMISSION_FROM = """
    jobs JOIN open_jobs USING (user_id)
    LEFT JOIN attempts ON attempts.id = jobs.attempt_id AND attempts.ended_at IS NULL
"""


def job_from_row(row: asyncpg.Record) -> Job:
    """A row with the columns of `JOB`."""
    return Job(
        id=JobId(row["id"]),
        user_id=UserId(row["user_id"]),
        state=JobState(row["state"]),
        generation=generation_from_json(row["generation"]),
        cost_ms=row["cost_ms"],
        place=row["place"],
        queued_at=row["queued_at"],
        start_by=row["start_by"],
        claimed_at=row["claimed_at"],
        first_step_at=row["first_step_at"],
        finished_at=row["finished_at"],
        steps_done=row["steps_done"],
        images=images_from_json(row["images"]),
        error=error_from_row(row),
        warnings=tuple(row["warnings"] or ()),
        attempts=row["attempts"],
        attempt_id=None if row["attempt_id"] is None else AttemptId(row["attempt_id"]),
        cancel_requested=row["cancel_requested"],
        traceparent=row["traceparent"],
        batch_id=None if row["batch_id"] is None else BatchId(row["batch_id"]),
        retry_of=None if row["retry_of"] is None else JobId(row["retry_of"]),
        lane=row["lane"],
        front=row["front"],
        is_hidden=row["is_hidden"],
    )


def error_from_row(row: asyncpg.Record) -> JobError | None:
    """The error in the columns `error_code` and `error_message`."""
    if row["error_code"] is None:
        return None
    return JobError(row["error_code"], row["error_message"])


def share_from_row(row: asyncpg.Record) -> Share:
    """A row with those columns of open_jobs."""
    return Share(row["version"], row["priority"], row["weight"], row["max_running"])


def claim_from_row(row: asyncpg.Record) -> Claim:
    """A row of attempts joined with its job's user."""
    return Claim(
        attempt_id=AttemptId(row["id"]),
        job_id=JobId(row["job_id"]),
        user_id=UserId(row["user_id"]),
        worker_id=WorkerId(row["worker_id"]),
        number=row["number"],
        claimed_at=row["claimed_at"],
    )


def admission_from_row(row: asyncpg.Record) -> Admission:
    """A row with the columns of `ADMISSION`."""
    claim = None
    if row["state"] == JobState.RUNNING and row["worker_id"] is not None:
        claim = Claim(
            attempt_id=AttemptId(row["attempt_id"]),
            job_id=JobId(row["id"]),
            user_id=UserId(row["user_id"]),
            worker_id=WorkerId(row["worker_id"]),
            number=row["number"],
            claimed_at=row["claimed_at"],
        )
    return Admission(
        job_id=JobId(row["id"]),
        user_id=UserId(row["user_id"]),
        model_key=ModelKey(row["model_key"]),
        cost_ms=row["cost_ms"],
        place=row["place"],
        attempts=row["attempts"],
        start_by=row["start_by"],
        share=share_from_row(row),
        claim=claim,
        front=row["front"],
        not_before=row["not_before"],
    )
