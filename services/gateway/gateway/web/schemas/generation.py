"""Generations and pictures as JSON."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.domain.catalogue import Wish
from gateway.domain.job import Image, Job, JobState
from gateway.domain.library import Picture
from gateway.service.generations import PricedJob, PricedPage
from gateway.web.schemas.base import (
    IMAGE_EXAMPLE,
    JOB_EXAMPLE,
    TIME_EXAMPLE,
    Credits,
    Out,
    credits_text,
)

_PROMPT = "a blue square on a yellow background"
# PostgreSQL's text cannot hold U+0000.
_NO_NUL = r"^[^\x00]*$"

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


def _rfc3339(value: object) -> object:
    # pydantic would take numbers and bare dates as well
    if isinstance(value, str) and not re.match(r"\d{4}-\d{2}-\d{2}[Tt]", value):
        raise ValueError("must be a time as in RFC 3339")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339)]
Prompt = Annotated[str, Field(min_length=1, max_length=2000, pattern=_NO_NUL)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
BatchId = Annotated[
    str,
    Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
]


class In(BaseModel):
    """Base of requests: nothing unknown, nothing converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SettingsIn(In):
    """How to draw. What is left out comes from the model's defaults."""

    negative_prompt: str = Field("", max_length=2000, pattern=_NO_NUL)
    model: str | None = Field(
        None, min_length=1, max_length=100, description="Key of a model; default: the first one."
    )
    width: int | None = Field(None, ge=8, le=4096, description="Pixels.")
    height: int | None = Field(None, ge=8, le=4096, description="Pixels.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps per picture.")
    guidance: float | None = Field(
        None, ge=1, le=50, allow_inf_nan=False, description="1 switches guidance off."
    )
    sampler: str | None = Field(None, min_length=1, max_length=100)
    n: int = Field(1, ge=1, le=16, description="Pictures; the plan may allow fewer.")

    def wish_for(self, prompt: str, seed: int | None) -> Wish:
        """As the service takes it."""
        return Wish(
            prompt=prompt,
            negative_prompt=self.negative_prompt,
            model=self.model,
            width_px=self.width,
            height_px=self.height,
            steps=self.steps,
            guidance=self.guidance,
            seed=seed,
            sampler=self.sampler,
            image_count=self.n,
        )


class GenerationIn(SettingsIn):
    """What to draw. What is left out comes from the model's defaults."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": _PROMPT},
                {
                    "prompt": _PROMPT,
                    "model": "shapes-64",
                    "width": 64,
                    "height": 64,
                    "steps": 10,
                    "guidance": 2.5,
                    "seed": 7,
                    "n": 1,
                },
            ]
        },
    )

    prompt: Prompt
    seed: Seed | None = Field(None, description="Same seed, same picture; default: a random one.")

    def wish(self) -> Wish:
        """As the service takes it."""
        return self.wish_for(self.prompt, self.seed)


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


class GeneratedImageOut(Out):
    """A finished picture of a job."""

    id: str = Field(examples=[IMAGE_EXAMPLE])
    url: str = Field(
        description="Redirects to the bytes.", examples=[f"/v1/images/{IMAGE_EXAMPLE}/content"]
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
            url=f"/v1/images/{image.id}/content",
            width=image.width_px,
            height=image.height_px,
            media_type=image.media_type,
            seed=image.seed,
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
    prompt: str = Field(examples=[_PROMPT])
    negative_prompt: str = Field(examples=[""])
    model: str = Field(examples=["shapes-64"])
    width: int = Field(examples=[64])
    height: int = Field(examples=[64])
    steps: int = Field(examples=[10])
    guidance: float = Field(examples=[2.5])
    seed: int = Field(examples=[7])
    sampler: str = Field(examples=["ddim"])
    n: int = Field(examples=[1])
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


class ImageOut(Out):
    """A picture of the library."""

    id: str = Field(examples=[IMAGE_EXAMPLE])
    job_id: str = Field(examples=[JOB_EXAMPLE])
    url: str = Field(description="Redirects to the bytes.")
    width: int = Field(examples=[64])
    height: int = Field(examples=[64])
    media_type: str = Field(examples=["image/png"])
    size_bytes: int = Field(examples=[5120])
    sha256: str = Field(description="Of the bytes, hexadecimal.")
    seed: int = Field(examples=[7])
    created_at: datetime = Field(examples=[TIME_EXAMPLE])

    @classmethod
    def of(cls, picture: Picture) -> ImageOut:
        """From the domain."""
        image = picture.image
        return cls(
            id=image.id,
            job_id=picture.job_id,
            url=f"/v1/images/{image.id}/content",
            width=image.width_px,
            height=image.height_px,
            media_type=image.media_type,
            size_bytes=image.size_bytes,
            sha256=image.sha256,
            seed=image.seed,
            created_at=picture.created_at,
        )


def states(names: tuple[State, ...]) -> tuple[JobState, ...]:
    """As the service takes them."""
    return tuple(JobState(name) for name in names)
