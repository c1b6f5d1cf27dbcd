"""A job's progress as server-sent events."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

from easel_kit.errors import DomainError
from easel_kit.log import get_logger
from gateway.domain.job import Job, JobState, JobUpdate
from gateway.web.context import Caller, ServicesOf
from gateway.web.generations import JobIdIn, known_job_id
from gateway.web.openapi import problems
from gateway.web.schemas.generation import GenerationOut

# A cut stream is taken up again by the browser after this many milliseconds.
_RETRY_MS = 1000
_ENDS = frozenset(state.value for state in JobState if state.has_ended)

_log = get_logger(__name__)

router = APIRouter(tags=["generations"])


class QueuedEvent(BaseModel):
    """`queued`: the job waits, at this place."""

    position: int | None
    eta_seconds: float | None


class StartedEvent(BaseModel):
    """`started`: a worker has the job; `attempt` counts the tries."""

    attempt: int


class ProgressEvent(BaseModel):
    """`progress`: steps done, and the estimate of the picture as a data URL where there is one."""

    step: int
    steps: int
    percent: int
    preview: str | None


class EndEvent(BaseModel):
    """`succeeded`, `failed` or `cancelled`: the job as it ended; the last event."""

    generation: GenerationOut


class StreamIsOver(Exception):
    """The client has seen the last event already: 204 keeps a browser from asking again."""


async def on_stream_is_over(_request: Request, _error: Exception) -> Response:
    """Handler of `StreamIsOver`."""
    return Response(status_code=204)


async def _existing_job(
    job_id: JobIdIn,
    caller: Caller,
    services: ServicesOf,
    last_event_id: Annotated[
        str, Header(max_length=100, description="Of the last event seen, to go on after it.")
    ] = "",
) -> Job:
    job = (await services.generations.get(caller.user_id, known_job_id(job_id))).job
    if last_event_id in _ENDS:
        raise StreamIsOver
    return job


def _described(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    return {
        "type": "object",
        "required": ["event", "id", "data"],
        "properties": {"event": {"const": name}, "id": {"type": "string"}, "data": data},
    }


_END = {
    "type": "object",
    "required": ["generation"],
    "properties": {"generation": {"$ref": "#/components/schemas/GenerationOut"}},
}
_EVENTS = {
    "oneOf": [
        _described("queued", QueuedEvent.model_json_schema()),
        _described("started", StartedEvent.model_json_schema()),
        _described("progress", ProgressEvent.model_json_schema()),
        *(_described(name, _END) for name in sorted(_ENDS)),
    ]
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events until the job's end. Each carries an id; comments keep the "
        "connection open. A stream cut short is taken up again with Last-Event-ID.",
        "content": {
            "text/event-stream": {
                "itemSchema": _EVENTS,
                "examples": {
                    "job": {
                        "value": "id: queued-2\nevent: queued\n"
                        'data: {"position":2,"eta_seconds":3.5}\n\n'
                        'id: started-1\nevent: started\ndata: {"attempt":1}\n\n'
                        "id: progress-1-4\nevent: progress\n"
                        'data: {"step":4,"steps":10,"percent":40,"preview":null}\n\n'
                        'id: succeeded\nevent: succeeded\ndata: {"generation":{}}\n\n'
                    }
                },
            }
        },
    },
    204: {"description": "The last event was seen already"},
}


@router.get(
    "/v1/generations/{job_id}/events",
    operation_id="watchGeneration",
    summary="Watch a job",
    response_class=EventSourceResponse,
    responses=problems(404, 422) | _STREAM,
)
async def watch_generation(
    job: Annotated[Job, Depends(_existing_job)],
    services: ServicesOf,
    last_event_id: Annotated[str, Header(max_length=100)] = "",
) -> AsyncIterator[ServerSentEvent]:
    """Position while waiting, then steps and previews, then the end."""
    narrator = Narrator(last_event_id)
    yield ServerSentEvent(comment="watching", retry=_RETRY_MS)
    try:
        async with aclosing(services.generations.watch(job.user_id, job.id)) as updates:
            async for update in updates:
                for event in narrator.tell(update):
                    yield event
                if update.job.state.has_ended:
                    priced = await services.generations.price(job.user_id, update.job)
                    name = update.job.state.value
                    ended = EndEvent(generation=GenerationOut.of(priced))
                    yield ServerSentEvent(event=name, id=name, data=ended)
    except DomainError as error:
        # the answer has begun: ending it makes the client ask again and be told properly
        _log.warning("stream.cut", reason=type(error).__name__)


class Narrator:
    """Turns a job's updates into events, leaving out what was told already."""

    def __init__(self, last_event_id: str = "") -> None:
        """An event of `last_event_id` is not told again."""
        self._told: dict[str, str] = {}
        self._last_event_id = last_event_id
        self._attempt = 0

    def tell(self, update: JobUpdate) -> list[ServerSentEvent]:
        """The events of one update, its end apart."""
        job, found = update.job, list[ServerSentEvent | None]()
        if job.state is JobState.QUEUED:
            eta_s = None if job.eta_seconds is None else round(job.eta_seconds, 1)
            queued = QueuedEvent(position=job.position or None, eta_seconds=eta_s)
            found.append(self._event("queued", f"queued-{job.position}", queued))
        if job.state is JobState.RUNNING:
            started = StartedEvent(attempt=job.attempts)
            found.append(self._event("started", f"started-{job.attempts}", started))
            if job.progress.step or update.preview:
                found.append(self._progress(update))
        return [event for event in found if event is not None]

    def _progress(self, update: JobUpdate) -> ServerSentEvent | None:
        progress, preview = update.job.progress, None
        if update.preview:
            encoded = b64encode(update.preview).decode()
            preview = f"data:{update.preview_media_type};base64,{encoded}"
        return self._event(
            "progress",
            f"progress-{update.job.attempts}-{progress.step}",
            ProgressEvent(
                step=progress.step,
                steps=progress.steps,
                percent=progress.percent,
                preview=preview,
            ),
        )

    def _event(self, name: str, event_id: str, data: BaseModel) -> ServerSentEvent | None:
        told = data.model_dump_json()
        repeated = self._told.get(name) == told or event_id == self._last_event_id
        self._told[name] = told
        self._last_event_id = ""
        return None if repeated else ServerSentEvent(event=name, id=event_id, data=data)
