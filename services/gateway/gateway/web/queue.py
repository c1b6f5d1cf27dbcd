"""Routes of batches and of a user's own line: many jobs at once."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from easel_kit import ids
from easel_kit.errors import InvalidInput, NotFound
from easel_kit.ids import JobId
from easel_kit.log import get_logger
from gateway.domain.job import JobState
from gateway.web.context import Caller, ServicesOf
from gateway.web.openapi import problems
from gateway.web.schemas.base import BATCH_EXAMPLE
from gateway.web.schemas.generation import GenerationOut
from gateway.web.schemas.queue import (
    BatchIn,
    BatchOut,
    BatchStatusOut,
    CancelIn,
    ClearedOut,
    CountsOut,
    MovedOut,
    PrependIn,
    PrunedOut,
    PruneIn,
    StoppedOut,
)
from gateway.web.schemas.wish import BatchId

_log = get_logger(__name__)

router = APIRouter(tags=["queue"])

BatchIdIn = Annotated[BatchId, Path(examples=[BATCH_EXAMPLE])]


def _job_ids(texts: tuple[str, ...]) -> list[JobId]:
    try:
        return [ids.job_id(text) for text in texts]
    except InvalidInput as error:
        raise InvalidInput("ids", "must be ids of jobs") from error


@router.post(
    "/v1/batches",
    operation_id="submitBatch",
    summary="Submit many jobs at once",
    status_code=202,
    responses=problems(400, 402, 409, 413, 422)
    | {
        202: {
            "description": "All jobs are accepted",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "The batch."}},
        }
    },
)
async def submit_batch(
    body: BatchIn, caller: Caller, services: ServicesOf, response: Response
) -> BatchOut:
    """All jobs are accepted and their prices set aside, or nothing happens."""
    batch_id = ids.new_id("bat")
    priced = await services.generations.submit_batch(
        caller.user_id,
        batch_id,
        body.wish_for(body.prompts[0], None),
        prompts=body.prompts,
        seeds=body.seeds,
        runs=body.runs,
        prepend=body.prepend,
    )
    _log.info("batch.submitted", batch_id=batch_id, jobs=len(priced))
    response.headers["Location"] = f"/v1/batches/{batch_id}"
    return BatchOut(id=batch_id, items=tuple(GenerationOut.of(one) for one in priced))


@router.get(
    "/v1/batches/{batch_id}",
    operation_id="getBatch",
    summary="How far a batch is",
    responses=problems(404, 422),
)
async def get_batch(batch_id: BatchIdIn, caller: Caller, services: ServicesOf) -> BatchStatusOut:
    """Its jobs, counted by state; list them with `GET /v1/generations?batch_id=…`."""
    counts = CountsOut.of(await services.line.count(caller.user_id, [batch_id]))
    if not counts.total:
        raise NotFound("batch", batch_id)
    return BatchStatusOut(id=batch_id, counts=counts)


@router.delete(
    "/v1/batches/{batch_id}",
    operation_id="cancelBatch",
    summary="Cancel a batch",
    responses=problems(404, 422),
)
async def cancel_batch(batch_id: BatchIdIn, caller: Caller, services: ServicesOf) -> StoppedOut:
    """As the cancel of each of its jobs that has not ended."""
    if not sum((await services.line.count(caller.user_id, [batch_id])).values()):
        raise NotFound("batch", batch_id)
    stopped = await services.line.cancel_many(
        caller.user_id, job_ids=(), batch_ids=[batch_id], waiting_only=False
    )
    return StoppedOut.of(stopped)


@router.get(
    "/v1/queue",
    operation_id="countJobs",
    summary="Your jobs, counted by state",
    responses=problems(),
)
async def count_jobs(caller: Caller, services: ServicesOf) -> CountsOut:
    """Those that are out of sight do not count."""
    return CountsOut.of(await services.line.count(caller.user_id, ()))


@router.post(
    "/v1/queue/cancel",
    operation_id="cancelJobs",
    summary="Cancel many jobs",
    responses=problems(400, 413, 422),
)
async def cancel_jobs(body: CancelIn, caller: Caller, services: ServicesOf) -> StoppedOut:
    """As the cancel of each; an id that is not yours, or has ended, changes nothing."""
    stopped = await services.line.cancel_many(
        caller.user_id,
        job_ids=_job_ids(body.ids),
        batch_ids=body.batch_ids,
        waiting_only=body.waiting_only,
    )
    return StoppedOut.of(stopped)


@router.post(
    "/v1/queue/prepend",
    operation_id="prependJobs",
    summary="Move waiting jobs to the front of your line",
    responses=problems(400, 413, 422),
)
async def prepend_jobs(body: PrependIn, caller: Caller, services: ServicesOf) -> MovedOut:
    """Before your other waiting jobs; other users' places do not change."""
    moved = await services.line.prepend(caller.user_id, _job_ids(body.ids))
    return MovedOut(moved=moved)


@router.post(
    "/v1/queue/prune",
    operation_id="pruneJobs",
    summary="Take ended jobs out of sight",
    responses=problems(400, 413, 422),
)
async def prune_jobs(body: PruneIn, caller: Caller, services: ServicesOf) -> PrunedOut:
    """Pictures, bills and the ledger stay as they are."""
    pruned = await services.line.prune(
        caller.user_id, states=[JobState(state) for state in body.states], batch_ids=body.batch_ids
    )
    return PrunedOut(pruned=pruned)


@router.post(
    "/v1/queue/clear",
    operation_id="clearJobs",
    summary="Cancel everything and take it out of sight",
    responses=problems(),
)
async def clear_jobs(caller: Caller, services: ServicesOf) -> ClearedOut:
    """Waiting jobs end at once, running ones at their next step; only steps that ran cost."""
    cancelled, pruned = await services.line.clear(caller.user_id)
    return ClearedOut(cancelled=cancelled, pruned=pruned)
