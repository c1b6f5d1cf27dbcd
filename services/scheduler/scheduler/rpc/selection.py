"""Which jobs are meant, and what was done to them, on the wire and in the domain; checked here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from easel.scheduler.v1 import jobs_pb2
from easel_kit import ids
from easel_kit.errors import InvalidInput
from easel_kit.ids import BatchId, JobId
from scheduler.domain.job import ENDED_STATES, JobState
from scheduler.domain.load import Load
from scheduler.domain.selection import Cancellation, Filter, Mark, Selection
from scheduler.rpc.checks import model_key, within
from scheduler.rpc.mapping import state_from_wire, state_to_wire

MAX_JOB_IDS = 1_000
_MAX_FILTER = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = 253_402_300_799
"""Of the year 9999."""
_LAST_NANO = 999_999_999
_PAGE_SIZE, _MAX_PAGE_SIZE = 20, 100
_TOKEN = re.compile(r"([0-9]{1,17})-([0-9]{1,18})")
_Checked = TypeVar("_Checked")


def _each(
    wire: Sequence[str], check: Callable[[str, str], _Checked], most: int, field: str
) -> list[_Checked]:
    within(len(wire), 0, most, f"{field} (how many)")
    return [check(one, f"{field}.{n}") for n, one in enumerate(wire)]


def batch_ids(wire: Sequence[str]) -> frozenset[BatchId]:
    """Batches asked for.

    Raises:
        InvalidInput: too many, or one that cannot be one.
    """
    return frozenset(_each(wire, ids.batch_id, _MAX_FILTER, "batch_ids"))


def job_ids(wire: Sequence[str], *, least: int = 0) -> list[JobId]:
    """Jobs named.

    Raises:
        InvalidInput: too few or too many, or one that cannot be one.
    """
    within(len(wire), least, MAX_JOB_IDS, "job_ids (how many)")
    return _each(wire, ids.job_id, MAX_JOB_IDS, "job_ids")


def _states(wire: Iterable[jobs_pb2.JobState.ValueType]) -> frozenset[JobState]:
    return frozenset(state_from_wire(state, f"states.{n}") for n, state in enumerate(wire))


def wanted(request: jobs_pb2.ListJobsRequest) -> Filter:
    """The filter of a list.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    return Filter(
        states=_states(request.states),
        batch_ids=batch_ids(request.batch_ids),
        model_keys=frozenset(_each(request.model_keys, model_key, _MAX_FILTER, "model_keys")),
        queued_from=_time(request, "queued_from"),
        queued_before=_time(request, "queued_before"),
    )


def pruned(request: jobs_pb2.PruneJobsRequest) -> Filter:
    """Which ended jobs go out of sight.

    Raises:
        InvalidInput: names the first field that is wrong; an open state is.
    """
    states = _states(request.states)
    if not states <= ENDED_STATES:
        raise InvalidInput("states", "must be states of jobs that have ended")
    return Filter(states=states, batch_ids=batch_ids(request.batch_ids))


def selection(request: jobs_pb2.CancelJobsRequest) -> Selection:
    """Which jobs are to end.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    return Selection(frozenset(job_ids(request.job_ids)), batch_ids(request.batch_ids))


def _time(request: jobs_pb2.ListJobsRequest, field: str) -> datetime | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    wire: Timestamp = getattr(request, field)
    seconds = within(wire.seconds, 0, _LAST_SECOND, f"{field}.seconds")
    nanos = within(wire.nanos, 0, _LAST_NANO, f"{field}.nanos")
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)


def page_size(wire: int) -> int:
    """Jobs a page; 0 means the usual.

    Raises:
        InvalidInput: out of bounds.
    """
    return within(wire or _PAGE_SIZE, 1, _MAX_PAGE_SIZE, "page_size")


def page_before(token: str) -> Mark | None:
    """Where a page begins.

    Raises:
        InvalidInput: the token is none of ours.
    """
    if not token:
        return None
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise InvalidInput("page_token", "must come from the previous answer")
    return Mark(_EPOCH + timedelta(microseconds=int(found[1])), int(found[2]))


def page_token(before: Mark | None) -> str:
    """What the next request has to say."""
    if before is None:
        return ""
    return f"{(before.queued_at - _EPOCH) // timedelta(microseconds=1)}-{before.place}"


def cancellation_to_wire(found: Cancellation) -> jobs_pb2.CancelJobsResponse:
    """What a cancel came to."""
    return jobs_pb2.CancelJobsResponse(
        cancelled_job_ids=[job.id for job in found.ended],
        stopping_job_ids=[job.id for job in found.stopping],
        running_job_ids=found.running,
        ended_job_ids=found.over,
        unknown_job_ids=found.unknown,
    )


def counts_to_wire(counts: Mapping[JobState, int]) -> jobs_pb2.CountJobsResponse:
    """Jobs by state."""
    return jobs_pb2.CountJobsResponse(
        counts=[
            jobs_pb2.JobCount(state=state_to_wire(state), jobs=jobs)
            for state, jobs in counts.items()
        ]
    )


def queue_to_wire(load: Load, *, workers: int, slots: int) -> jobs_pb2.GetQueueResponse:
    """The line as a whole."""
    return jobs_pb2.GetQueueResponse(
        tiers=[
            jobs_pb2.Tier(
                priority=tier.priority,
                weight=tier.weight,
                waiting=tier.waiting,
                running=tier.running,
                waiting_users=tier.waiting_users,
            )
            for tier in load.tiers
        ],
        waiting=load.waiting,
        running=load.running,
        waiting_cost_ms=load.waiting_cost_ms,
        oldest_waiting_s=load.oldest_waiting_s,
        workers=workers,
        slots=slots,
    )
