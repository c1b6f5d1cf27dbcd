"""Routes of generations: submit, list, look, cancel."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import Field
from structlog.contextvars import bind_contextvars

from easel_kit import ids
from easel_kit.errors import InvalidInput, NotFound
from easel_kit.ids import JobId
from easel_kit.log import get_logger
from gateway.domain.job import JobFilter
from gateway.web.context import Caller, ServicesOf
from gateway.web.openapi import problems
from gateway.web.problems import JOB_ID_KEY
from gateway.web.schemas.base import JOB_EXAMPLE
from gateway.web.schemas.generation import (
    GenerationOut,
    GenerationPage,
    Moment,
    State,
    states,
)
from gateway.web.schemas.wish import BatchId, GenerationIn

_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?=$|[,;\s])", re.IGNORECASE)
_MAX_WAIT_S = 60

_log = get_logger(__name__)

router = APIRouter(tags=["generations"])

JobIdIn = Annotated[str, Path(max_length=64, examples=[JOB_EXAMPLE])]


def known_job_id(text: str) -> JobId:
    """The job id in a path; nothing has an id that is malformed.

    Raises:
        NotFound: it is malformed.
    """
    try:
        job_id = ids.job_id(text)
    except InvalidInput as error:
        raise NotFound("job", text) from error
    bind_contextvars(job_id=job_id)
    return job_id


def wait_s(prefer: str) -> int:
    """Seconds asked for by a Prefer header (RFC 7240), at most a minute; 0 where there are none."""
    found = _WAIT.search(prefer)
    return min(int(found.group(1)), _MAX_WAIT_S) if found else 0


@router.post(
    "/v1/generations",
    operation_id="submitGeneration",
    summary="Submit a job",
    status_code=202,
    responses=problems(400, 402, 409, 413, 422)
    | {
        200: {"description": "The job has ended within the preferred wait", "model": GenerationOut},
        202: {
            "description": "The job waits or runs",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "The job."}},
        },
    },
)
async def submit_generation(
    *,
    body: GenerationIn,
    caller: Caller,
    services: ServicesOf,
    request: Request,
    response: Response,
    prefer: Annotated[
        str, Header(max_length=200, description="`wait=30` waits so many seconds for the end.")
    ] = "",
) -> GenerationOut:
    """Sets the price aside and queues the job; its end is paid for, or the price freed."""
    job_id = ids.new_job_id()
    bind_contextvars(job_id=job_id)
    request.scope[JOB_ID_KEY] = job_id
    priced = await services.generations.submit(caller.user_id, job_id, body.wish())
    _log.info(
        "job.submitted",
        model=priced.job.generation.model_key,
        price_millicredits=priced.hold.amount_millicredits if priced.hold else None,
    )
    response.headers["Location"] = f"/v1/generations/{job_id}"
    if seconds := wait_s(prefer):
        response.headers["Preference-Applied"] = f"wait={seconds}"
        priced = await services.generations.wait(caller.user_id, job_id, wait_s=seconds)
        if priced.job.state.has_ended:
            response.status_code = 200
    return GenerationOut.of(priced)


@router.get(
    "/v1/generations",
    operation_id="listGenerations",
    summary="Your jobs, newest first",
    responses=problems(422),
)
async def list_generations(
    *,
    caller: Caller,
    services: ServicesOf,
    state: Annotated[
        tuple[State, ...], Query(max_length=5, description="Only these; repeat for several.")
    ] = (),
    batch_id: Annotated[
        tuple[BatchId, ...], Query(max_length=100, description="Only of these batches.")
    ] = (),
    model: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=100)], ...],
        Query(max_length=20, description="Only of these models."),
    ] = (),
    queued_from: Annotated[Moment | None, Query(description="Only accepted from then on.")] = None,
    queued_before: Annotated[Moment | None, Query(description="Only accepted before then.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str, Query(max_length=512, description="From the previous page.")] = "",
) -> GenerationPage:
    """One page of the caller's jobs."""
    wanted = JobFilter(
        states=states(state),
        batch_ids=batch_id,
        models=model,
        queued_from=queued_from,
        queued_before=queued_before,
    )
    page = await services.generations.list(
        caller.user_id, wanted, page_size=limit, page_token=cursor
    )
    return GenerationPage.of(page)


@router.get(
    "/v1/generations/{job_id}",
    operation_id="getGeneration",
    summary="One job",
    responses=problems(404, 422),
)
async def get_generation(job_id: JobIdIn, caller: Caller, services: ServicesOf) -> GenerationOut:
    """The job as it stands."""
    return GenerationOut.of(await services.generations.get(caller.user_id, known_job_id(job_id)))


@router.delete(
    "/v1/generations/{job_id}",
    operation_id="cancelGeneration",
    summary="Cancel a job",
    responses=problems(404, 422)
    | {
        200: {"description": "The job has ended, as it says"},
        202: {"description": "The job stops at its next step", "model": GenerationOut},
    },
)
async def cancel_generation(
    job_id: JobIdIn, caller: Caller, services: ServicesOf, response: Response
) -> GenerationOut:
    """A waiting job ends at once, a running one at its next step; only steps that ran cost."""
    priced = await services.generations.cancel(caller.user_id, known_job_id(job_id))
    _log.info("job.cancel_asked", state=priced.job.state)
    if not priced.job.state.has_ended:
        response.status_code = 202
    return GenerationOut.of(priced)


@router.post(
    "/v1/generations/{job_id}/retry",
    operation_id="retryGeneration",
    summary="The same again",
    status_code=202,
    responses=problems(402, 404, 409, 422)
    | {
        202: {
            "description": "The new job waits",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "The new job."}},
        }
    },
)
async def retry_generation(
    job_id: JobIdIn, caller: Caller, services: ServicesOf, request: Request, response: Response
) -> GenerationOut:
    """A new job of the same work, seed included, at a price of its own; the old one has ended."""
    new_id = ids.new_job_id()
    request.scope[JOB_ID_KEY] = new_id
    old_id = known_job_id(job_id)
    priced = await services.generations.retry(caller.user_id, old_id, new_id)
    _log.info("job.retried", new_job_id=new_id)
    response.headers["Location"] = f"/v1/generations/{new_id}"
    return GenerationOut.of(priced)
