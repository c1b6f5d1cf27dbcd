"""A no-op job as Easel sees it: a picture that nobody draws.

The job's number travels as the seed, how long it holds its worker as the prompt.
"""

from __future__ import annotations

from easel.common.v1 import generation_pb2
from easel.scheduler.v1 import jobs_pb2

MODEL = "bench"
_SIDE_PX = 64
_USERS = 100
"""Submits come from so many users in turn."""
_MOST = 100_000
_QUEUE_TIME_S = 3_600


def user_of(number: int, *, high: bool) -> str:
    """Whose job it is."""
    return f"{'high' if high else 'low'}-{number % _USERS}"


def entitlements(*, high: bool) -> jobs_pb2.Entitlements:
    """Priority and weight of the highest plan or of the lowest, limits that never bind."""
    return jobs_pb2.Entitlements(
        version=1,
        priority=100 if high else 0,
        weight=16 if high else 1,
        max_running=_MOST,
        max_waiting=_MOST,
        queue_time_s=_QUEUE_TIME_S,
    )


def request(job_id: str, number: int, *, hold_ms: int, high: bool) -> jobs_pb2.SubmitJobsRequest:
    """One submit of one job."""
    return jobs_pb2.SubmitJobsRequest(
        user_id=user_of(number, high=high),
        entitlements=entitlements(high=high),
        jobs=[
            jobs_pb2.JobSubmission(
                job_id=job_id,
                generation=generation_pb2.Generation(
                    model_key=MODEL,
                    prompt=str(hold_ms),
                    width_px=_SIDE_PX,
                    height_px=_SIDE_PX,
                    steps=1,
                    guidance=1,
                    seed=number,
                    sampler="ddim",
                    image_count=1,
                ),
                cost_ms=1_000,
            )
        ],
    )
