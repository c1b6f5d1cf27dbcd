"""The gateway's ports in memory, for unit tests; what they hold to is in tests/contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from easel_kit import ids
from easel_kit.errors import NotFound
from easel_kit.ids import ImageId, JobId, ModelKey, UserId
from gateway.domain.account import Entitlements
from gateway.domain.catalogue import Model, ModelDefaults, Size
from gateway.domain.generation import Generation
from gateway.domain.job import (
    Batch,
    Image,
    Job,
    JobFilter,
    JobPage,
    JobState,
    JobUpdate,
    Outlook,
    Timeline,
)
from gateway.domain.library import Cursor, JobEvent, Picture, PictureKind, PicturePage

ALICE, MALLORY = UserId("alice"), UserId("mallory")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class MovedClock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return self.elapsed_s


def model(key: str = "shapes-64", **changed: object) -> Model:
    made = Model(
        key=ModelKey(key),
        name=key,
        base="shapes",
        type="main",
        description="",
        licence="MIT",
        defaults=ModelDefaults(steps=10, guidance=2.5, size=Size(64, 64), sampler="ddim"),
        sizes=(Size(64, 64), Size(64, 128)),
        max_steps=50,
        max_prompt_tokens=32,
        samplers=("ddim", "euler"),
        loaded=True,
        unavailable_reason="",
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def generation() -> Generation:
    return Generation(
        model_key=ModelKey("shapes-64"),
        prompt="a red circle",
        negative_prompt="",
        width_px=64,
        height_px=64,
        steps=10,
        guidance=2.5,
        seed=7,
        sampler="ddim",
        image_count=1,
    )


def job(state: JobState = JobState.QUEUED, **changed: object) -> Job:
    made = Job(id=ids.new_job_id(), user_id=ALICE, state=state, generation=generation())
    return replace(made, **changed)  # type: ignore[arg-type]


def image() -> Image:
    image_id = ids.new_image_id()
    return Image(
        id=image_id,
        object_key=f"users/alice/{image_id}.png",
        width_px=64,
        height_px=64,
        media_type="image/png",
        size_bytes=10,
        sha256="0" * 64,
        seed=2**32 - 1,
        thumbnail_object_key=f"users/alice/{image_id}.webp",
    )


def finished() -> Job:
    timeline = Timeline(queued_at=NOON, finished_at=NOON)
    return job(JobState.SUCCEEDED, images=(image(), image()), timeline=timeline)


@dataclass
class FakeJobs:
    """A scheduler: `refuse` is raised by a submit, `after` by one that has been written."""

    jobs: dict[JobId, Job] = field(default_factory=dict)
    refuse: Exception | None = None
    after: Exception | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    streams: list[list[JobUpdate | Exception]] = field(default_factory=list)
    watching: int = 0

    async def submit(
        self, user_id: UserId, batch: Batch, entitlements: Entitlements
    ) -> tuple[Job, ...]:
        assert entitlements.version == 1
        self.entered.set()
        await self.go_on.wait()
        if self.refuse is not None:
            raise self.refuse
        made = tuple(
            Job(
                id=order.job_id,
                user_id=user_id,
                state=JobState.QUEUED,
                generation=order.generation,
                batch_id=batch.id,
                retry_of=order.retry_of,
            )
            for order in batch.orders
        )
        self.jobs |= {job.id: job for job in made}
        if self.after is not None:
            raise self.after
        return made

    async def get(self, user_id: UserId, job_id: JobId) -> Job:
        found = self.jobs.get(job_id)
        if found is None or found.user_id != user_id:
            raise NotFound("job", job_id)
        return found

    async def list(
        self, user_id: UserId, wanted: JobFilter, *, page_size: int, page_token: str
    ) -> JobPage:
        assert page_token == ""
        own = [found for found in self.jobs.values() if found.user_id == user_id]
        shown = [found for found in own if not wanted.states or found.state in wanted.states]
        return JobPage(tuple(shown[:page_size]), "next" if len(shown) > page_size else "")

    async def cancel(self, user_id: UserId, job_id: JobId) -> Job:
        found = replace(await self.get(user_id, job_id), state=JobState.CANCELLED)
        self.jobs[job_id] = found
        return found

    async def watch(self, user_id: UserId, job_id: JobId) -> AsyncGenerator[JobUpdate, None]:
        await self.get(user_id, job_id)
        self.watching += 1
        try:
            for told in self.streams.pop(0) if self.streams else []:
                if isinstance(told, Exception):
                    raise told
                yield told
            if not self.streams:
                await asyncio.Event().wait()
        finally:
            self.watching -= 1


@dataclass
class FakeLine:
    """The scheduler's counts and forecasts: as many of the user's jobs as `open` says."""

    open: int = 0
    eta_seconds: float | None = 2.5
    fault: Exception | None = None
    foreseen: list[Generation] = field(default_factory=list)

    async def count(self, user_id: UserId, batch_ids: Sequence[str]) -> dict[JobState, int]:
        assert (user_id, batch_ids) == (ALICE, ())
        if self.fault is not None:
            raise self.fault
        return {JobState.QUEUED: self.open, JobState.RUNNING: 0, JobState.FAILED: 9}

    async def foresee(
        self, user_id: UserId, entitlements: Entitlements, generation: Generation
    ) -> Outlook:
        assert (user_id, entitlements.version) == (ALICE, 1)
        self.foreseen.append(generation)
        return Outlook(self.open + 1, self.eta_seconds)


@dataclass
class FakeLibrary:
    """The library and the place in the feed."""

    pictures: dict[ImageId, Picture] = field(default_factory=dict)
    removed: set[ImageId] = field(default_factory=set)
    place: Cursor = field(default_factory=Cursor)
    fault: Exception | None = None

    async def record(self, pictures: Sequence[Picture]) -> None:
        if self.fault is not None:
            raise self.fault
        for picture in pictures:
            self.pictures.setdefault(picture.image.id, picture)

    async def find(self, user_id: UserId, image_id: ImageId) -> Picture:
        found = self._shown(user_id).get(image_id)
        if found is None:
            raise NotFound("image", image_id)
        return found

    def _shown(self, user_id: UserId) -> dict[ImageId, Picture]:
        return {
            image_id: picture
            for image_id, picture in self.pictures.items()
            if picture.user_id == user_id and image_id not in self.removed
        }

    async def page(
        self, user_id: UserId, *, kind: PictureKind | None, before: ImageId | None, limit: int
    ) -> PicturePage:
        found = [
            picture
            for image_id, picture in sorted(self._shown(user_id).items(), reverse=True)
            if kind in {None, picture.kind} and (before is None or image_id < before)
        ]
        shown = tuple(found[:limit])
        return PicturePage(shown, shown[-1].image.id if len(found) > limit else None)

    async def object_keys(
        self, user_id: UserId, image_ids: Collection[ImageId]
    ) -> dict[ImageId, str]:
        shown = self._shown(user_id)
        return {one: shown[one].image.object_key for one in image_ids if one in shown}

    async def remove(self, user_id: UserId, image_id: ImageId) -> None:
        await self.find(user_id, image_id)
        self.removed.add(image_id)

    async def cursor(self) -> Cursor:
        return self.place

    async def apply(self, pictures: Sequence[Picture], cursor: Cursor) -> None:
        await self.record(pictures)
        self.place = max(self.place, cursor)


@dataclass
class FakeObjects:
    """The object store."""

    kept: dict[str, bytes] = field(default_factory=dict)
    fault: Exception | None = None

    async def put(self, key: str, data: bytes, media_type: str) -> None:
        assert media_type.startswith("image/")
        if self.fault is not None:
            raise self.fault
        self.kept[key] = data

    async def delete(self, key: str) -> None:
        if self.fault is not None:
            raise self.fault
        self.kept.pop(key, None)

    async def signed_url(self, key: str, *, expires_s: int) -> str:
        return f"/objects/{key}?expires={expires_s}"


@dataclass
class FakeModels:
    """The catalogue; counts how often it was asked."""

    models: list[Model] = field(default_factory=lambda: [model()])
    fault: Exception | None = None
    asked: int = 0

    async def list_models(self) -> tuple[Model, ...]:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return tuple(self.models)


@dataclass
class FakeFeed:
    """An event feed: each subscription gets the next script of batches, then waits for ever."""

    scripts: list[list[tuple[JobEvent, ...] | Exception]] = field(default_factory=list)
    cursors: list[Cursor] = field(default_factory=list)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def subscribe(self, after: Cursor) -> AsyncGenerator[tuple[JobEvent, ...], None]:
        self.cursors.append(after)
        for told in self.scripts.pop(0) if self.scripts else []:
            if isinstance(told, Exception):
                raise told
            yield told
        if not self.scripts:
            self.idle.set()
            await asyncio.Event().wait()
