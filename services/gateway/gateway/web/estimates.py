"""Routes that look ahead: what would it cost, when would it be done."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.domain.batch import job_count
from gateway.web.context import Caller, ServicesOf
from gateway.web.openapi import problems
from gateway.web.schemas.estimate import EstimateOut
from gateway.web.schemas.queue import BatchIn
from gateway.web.schemas.wish import GenerationIn

router = APIRouter(tags=["generations"])


@router.post(
    "/v1/generations/estimate",
    operation_id="estimateGeneration",
    summary="What a job would cost",
    responses=problems(400, 413, 422),
)
async def estimate_generation(
    body: GenerationIn, caller: Caller, services: ServicesOf
) -> EstimateOut:
    """Takes what a submit takes and refuses what it refuses, but reserves and queues nothing."""
    return EstimateOut.of(await services.estimates.estimate(caller.user_id, body.wish()))


@router.post(
    "/v1/batches/estimate",
    operation_id="estimateBatch",
    summary="What a batch would cost",
    responses=problems(400, 413, 422),
)
async def estimate_batch(body: BatchIn, caller: Caller, services: ServicesOf) -> EstimateOut:
    """As for one job, for each prompt with each seed, `runs` times."""
    jobs = job_count(body.prompts, body.seeds, body.runs)
    wish = body.wish_for(body.prompts[0], None)
    return EstimateOut.of(await services.estimates.estimate(caller.user_id, wish, jobs=jobs))
