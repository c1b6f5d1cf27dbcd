"""Generations as JSON: what is answered."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BeforeValidator, Field

from gateway.domain.job import Image, Job, JobState
from gateway.service.generations import PricedJob, PricedPage
from gateway.web.schemas.asked import ControlOut, HiresOut, InitImageOut, LoraOut, OutputOut
from gateway.web.schemas.base import (
    IMAGE_EXAMPLE,
    JOB_EXAMPLE,
    PROMPT_EXAMPLE,
    TIME_EXAMPLE,
    Credits,
    Out,
    credits_text,
)

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


def _rfc3339(value: object) -> object:
    # pydantic would take numbers and bare dates as well
    if isinstance(value, str) and not re.match(r"\d{4}-\d{2}-\d{2}[Tt]", value):
        raise ValueError("must be a time as in RFC 3339")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]


class ProgressOut(Out):
    """Denoising steps done and to do, over all pictures."""

    step: int
    steps: int
    percent: int = Field(ge=0, le=100)


class TimelineOut(Out):
    """When the job reached each point; null where it has not."""

    queued_at: datetime | None = Field(examples=[TIME_EXAMPLE])
    claimed_at: datetime | None
    first_step_at: datetime | None
    finished_at: datetime | None


def content_path(image: Image) -> str:
    """Where a picture's bytes are asked for."""
    return f"/v1/images/{image.id}/content"


def thumbnail_path(image: Image) -> str | None:
    """Where its small copy is asked for; None where there is none."""
    return f"/v1/images/{image.id}/thumbnail" if image.thumbnail_object_key else None


class GeneratedImageOut(Out):
    """A finished picture of a job."""

    id: str = Field(examples=[IMAGE_EXAMPLE])
    url: str = Field(
        description="Redirects to the bytes.", examples=[f"/v1/images/{IMAGE_EXAMPLE}/content"]
    )
    thumbnail_url: str | None = Field(
        description="Redirects to a WebP of at most 256 pixels a side; null where there is none.",
        examples=[f"/v1/images/{IMAGE_EXAMPLE}/thumbnail"],
    )
    width: int = Field(examples=[64])
    height: int = Field(examples=[64])
    media_type: str = Field(examples=["image/png"])
    seed: int = Field(examples=[7])

    @classmethod
    def of(cls, image: Image) -> GeneratedImageOut:
        """From the domain."""
        return cls(
            id=image.id,
            url=content_path(image),
            thumbnail_url=thumbnail_path(image),
            width=image.width_px,
            height=image.height_px,
            media_type=image.media_type,
            seed=image.seed or 0,  # what a job has drawn has a seed
        )


class FailureOut(Out):
    """Why a job failed."""

    code: str = Field(examples=["worker_lost"])
    message: str


class GenerationLinks(Out):
    """Where to go from here."""

    self: str = Field(examples=[f"/v1/generations/{JOB_EXAMPLE}"])
    events: str = Field(examples=[f"/v1/generations/{JOB_EXAMPLE}/events"])
    cancel: str = Field(examples=[f"/v1/generations/{JOB_EXAMPLE}"], description="DELETE it.")


class GenerationOut(Out):
    """A job: what was asked for, how far it is, what came of it and what it costs."""

    id: str = Field(examples=[JOB_EXAMPLE])
    state: State
    position: int | None = Field(description="1 for the next to run; null when not waiting.")
    eta_seconds: float | None = Field(description="Estimated seconds to its end; null: unknown.")
    price_millicredits: int | None = Field(
        description="What is set aside for it; null while billing does not answer.", examples=[41]
    )
    price_credits: Credits | None
    charged_millicredits: int | None = Field(
        description="What it has cost in the end; null until that is settled."
    )
    prompt: str = Field(examples=[PROMPT_EXAMPLE])
    negative_prompt: str = Field(examples=[""])
    model: str = Field(examples=["shapes-64"])
    width: int = Field(examples=[64])
    height: int = Field(examples=[64])
    steps: int = Field(examples=[10])
    guidance: float = Field(examples=[2.5])
    seed: int = Field(examples=[7])
    sampler: str = Field(examples=["ddim"])
    n: int = Field(examples=[1])
    loras: tuple[LoraOut, ...]
    init_image: InitImageOut | None
    controls: tuple[ControlOut, ...]
    hires: HiresOut | None
    output: OutputOut
    clip_skip: int = Field(examples=[0])
    progress: ProgressOut
    timeline: TimelineOut
    images: tuple[GeneratedImageOut, ...]
    error: FailureOut | None
    warnings: tuple[str, ...]
    attempts: int = Field(description="Tries so far.")
    cancel_requested: bool
    batch_id: str | None = Field(description="The batch that it was submitted in; null for none.")
    retry_of: str | None = Field(description="The job that this one repeats; null for none.")
    links: GenerationLinks

    @classmethod
    def of(cls, priced: PricedJob) -> GenerationOut:
        """From the domain."""
        job, hold = priced.job, priced.hold
        order, here = job.generation, f"/v1/generations/{job.id}"
        return cls(
            id=job.id,
            state=job.state.value,
            position=job.position or None,
            eta_seconds=None if job.eta_seconds is None else round(job.eta_seconds, 1),
            price_millicredits=hold.amount_millicredits if hold else None,
            price_credits=credits_text(hold.amount_millicredits) if hold else None,
            charged_millicredits=hold.charged_millicredits if hold else None,
            prompt=order.prompt,
            negative_prompt=order.negative_prompt,
            model=order.model_key,
            width=order.width_px,
            height=order.height_px,
            steps=order.steps,
            guidance=order.guidance,
            seed=order.seed,
            sampler=order.sampler,
            n=order.image_count,
            loras=tuple(LoraOut.of(lora) for lora in order.loras),
            init_image=InitImageOut.of(order.init_image) if order.init_image else None,
            controls=tuple(ControlOut.of(control) for control in order.controls),
            hires=HiresOut.of(order.hires) if order.hires else None,
            output=OutputOut.of(order.output),
            clip_skip=order.clip_skip,
            progress=_progress(job),
            timeline=_timeline(job),
            images=tuple(GeneratedImageOut.of(image) for image in job.images),
            error=FailureOut(code=job.error.code, message=job.error.message) if job.error else None,
            warnings=job.warnings,
            attempts=job.attempts,
            cancel_requested=job.cancel_requested,
            batch_id=job.batch_id or None,
            retry_of=job.retry_of,
            links=GenerationLinks(self=here, events=f"{here}/events", cancel=here),
        )


def _progress(job: Job) -> ProgressOut:
    progress = job.progress
    return ProgressOut(step=progress.step, steps=progress.steps, percent=progress.percent)


def _timeline(job: Job) -> TimelineOut:
    timeline = job.timeline
    return TimelineOut(
        queued_at=timeline.queued_at,
        claimed_at=timeline.claimed_at,
        first_step_at=timeline.first_step_at,
        finished_at=timeline.finished_at,
    )


class GenerationPage(Out):
    """Jobs, newest first."""

    items: tuple[GenerationOut, ...]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")

    @classmethod
    def of(cls, page: PricedPage) -> GenerationPage:
        """From the domain."""
        return cls(
            items=tuple(GenerationOut.of(priced) for priced in page.jobs),
            next_cursor=page.next_page_token or None,
        )


def states(names: tuple[State, ...]) -> tuple[JobState, ...]:
    """As the service takes them."""
    return tuple(JobState(name) for name in names)
