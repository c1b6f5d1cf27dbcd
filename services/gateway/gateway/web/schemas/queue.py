"""Batches and a user's own line as JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from gateway.domain.job import JobState, Stopped
from gateway.web.schemas.asked import In
from gateway.web.schemas.base import BATCH_EXAMPLE, JOB_EXAMPLE, Out
from gateway.web.schemas.generation import GenerationOut
from gateway.web.schemas.wish import BatchId, Prompt, Seed, SettingsIn

_MANY = 500
_MANY_BATCHES = 100

Ended = Literal["succeeded", "failed", "cancelled"]
_JobIds = Annotated[tuple[str, ...], Field(max_length=_MANY, strict=False)]
_BatchIds = Annotated[tuple[BatchId, ...], Field(max_length=_MANY_BATCHES, strict=False)]


class BatchIn(SettingsIn):
    """Each prompt with each seed, all of it `runs` times: one job each."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompts": ["a red circle", "a blue square"], "seeds": [1, 2], "runs": 1}]
        }
    )

    prompts: tuple[Prompt, ...] = Field(min_length=1, max_length=_MANY, strict=False)
    seeds: tuple[Seed, ...] = Field(
        (), max_length=_MANY, strict=False, description="None: each job draws its own."
    )
    runs: int = Field(1, ge=1, le=_MANY)
    prepend: bool = Field(default=False, description="Before your other waiting jobs.")


class CountsOut(Out):
    """How many jobs are in each state."""

    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    total: int

    @classmethod
    def of(cls, counts: dict[JobState, int]) -> CountsOut:
        """From the domain."""
        return cls(
            queued=counts.get(JobState.QUEUED, 0),
            running=counts.get(JobState.RUNNING, 0),
            succeeded=counts.get(JobState.SUCCEEDED, 0),
            failed=counts.get(JobState.FAILED, 0),
            cancelled=counts.get(JobState.CANCELLED, 0),
            total=sum(counts.values()),
        )


class BatchOut(Out):
    """A batch as it was accepted: all of it."""

    id: str = Field(examples=[BATCH_EXAMPLE])
    items: tuple[GenerationOut, ...]


class BatchStatusOut(Out):
    """How far a batch is."""

    id: str = Field(examples=[BATCH_EXAMPLE])
    counts: CountsOut


class CancelIn(In):
    """Which jobs to cancel; without ids: all that wait or run."""

    ids: _JobIds = Field((), examples=[[JOB_EXAMPLE]])
    batch_ids: _BatchIds = Field((), examples=[[BATCH_EXAMPLE]])
    waiting_only: bool = Field(default=False, description="Leave running jobs alone.")


class StoppedOut(Out):
    """What a cancel did; jobs that had ended before are in neither list."""

    cancelled: tuple[str, ...] = Field(description="Had waited, and have ended now.")
    stopping: tuple[str, ...] = Field(description="Run, and stop at their next step.")

    @classmethod
    def of(cls, stopped: Stopped) -> StoppedOut:
        """From the domain."""
        return cls(cancelled=stopped.cancelled, stopping=stopped.stopping)


class PrependIn(In):
    """Which jobs come first, in this order."""

    ids: tuple[str, ...] = Field(
        min_length=1, max_length=_MANY, strict=False, examples=[[JOB_EXAMPLE]]
    )


class MovedOut(Out):
    """Which jobs were moved; those that no longer wait were not."""

    moved: tuple[str, ...]


class PruneIn(In):
    """Which ended jobs to take out of sight; nothing named: all of them."""

    states: tuple[Ended, ...] = Field((), max_length=3, strict=False)
    batch_ids: _BatchIds = ()


class PrunedOut(Out):
    """How many jobs are out of sight now. Their pictures stay in the library."""

    pruned: int


class ClearedOut(PrunedOut):
    """How many jobs were cancelled as well."""

    cancelled: int
