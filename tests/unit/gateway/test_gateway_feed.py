"""The feed is followed over failures of either side, from the last committed place."""

import asyncio
from collections.abc import Sequence

import pytest

from easel_kit.errors import DependencyDown, OutOfRange
from gateway.domain.job import Job, JobState
from gateway.domain.library import Cursor, JobEvent, Picture
from gateway.loop import feed as loop
from tests.fakes.gateway_ports import NOON, FakeFeed, FakeLibrary, finished, job


def event(sequence: int, about: Job) -> JobEvent:
    return JobEvent(
        cursor=Cursor(1, 1, sequence),
        state=about.state,
        job_id=about.id,
        user_id=about.user_id,
        occurred_at=NOON,
        images=about.images,
    )


async def follow(feed: FakeFeed, library: FakeLibrary) -> None:
    following = asyncio.ensure_future(loop.follow_feed(feed, library))
    async with asyncio.timeout(5):
        await feed.idle.wait()
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_FIRST_PAUSE_S", 0.0)


async def test_pictures_of_finished_jobs_are_recorded() -> None:
    done, failed = finished(), job(JobState.FAILED)
    feed = FakeFeed([[(event(1, job()), event(2, done)), (event(3, failed),)]])
    library = FakeLibrary()
    await follow(feed, library)
    assert library.pictures.keys() == {image.id for image in done.images}
    assert library.place == Cursor(1, 1, 3)


async def test_a_cut_feed_is_taken_up_where_it_was_committed_or_where_it_begins() -> None:
    first, second = finished(), finished()
    feed = FakeFeed(
        [
            [(event(1, first),), DependencyDown("cut")],
            [],
            [OutOfRange("kept no longer")],
            [(event(2, second),)],
        ]
    )
    library = FakeLibrary()
    await follow(feed, library)
    lost_place = Cursor()
    assert feed.cursors == [Cursor(), *[Cursor(1, 1, 1)] * 2, lost_place]
    assert library.place == Cursor(1, 1, 2)


async def test_what_could_not_be_stored_comes_again() -> None:
    done = finished()

    class Once(FakeLibrary):
        async def record(self, pictures: Sequence[Picture]) -> None:
            if self.fault is None:
                self.fault = DependencyDown("the database is away")
                raise self.fault
            self.pictures |= {picture.image.id: picture for picture in pictures}

    library = Once()
    feed = FakeFeed([[(event(1, done),)], [(event(1, done),)]])
    await follow(feed, library)
    assert feed.cursors == [Cursor(), Cursor()]
    assert library.place == Cursor(1, 1, 1)
    assert len(library.pictures) == 2
