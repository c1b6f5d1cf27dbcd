"""What the library promises, of the fake and of Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from easel_kit import ids, migrations
from easel_kit.db import open_pool
from easel_kit.errors import NotFound
from gateway import main
from gateway.domain.library import Cursor, Picture, PictureKind
from gateway.storage.library import PostgresLibrary
from tests.fakes.gateway_ports import ALICE, MALLORY, NOON, FakeLibrary, image

MIGRATIONS = Path(main.__file__).parent / "migrations"
Libraries = FakeLibrary | PostgresLibrary


def picture() -> Picture:
    return Picture(image=image(), user_id=ALICE, job_id=ids.new_job_id(), created_at=NOON)


@pytest.fixture(params=["fake", "postgres"])
async def library(request: pytest.FixtureRequest) -> AsyncIterator[Libraries]:
    if request.param == "fake":
        yield FakeLibrary()
        return
    make: Callable[[str, Callable[[str], None]], str] = request.getfixturevalue("migrated_database")
    url = make("gateway", lambda empty: migrations.upgrade(MIGRATIONS, empty, main.SCHEMA))
    async with open_pool(url, schema=main.SCHEMA, name="test") as pool:
        yield PostgresLibrary(pool)


async def test_a_picture_is_its_owners_alone(library: Libraries) -> None:
    kept = picture()
    await library.record([kept])
    assert await library.find(ALICE, kept.image.id) == kept
    for user, image_id in ((MALLORY, kept.image.id), (ALICE, ids.new_image_id())):
        with pytest.raises(NotFound):
            await library.find(user, image_id)


async def test_recording_again_changes_nothing(library: Libraries) -> None:
    kept, other = picture(), picture()
    await library.record([kept])
    await library.record([replace(kept, user_id=MALLORY), other])
    assert await library.find(ALICE, kept.image.id) == kept
    assert await library.find(ALICE, other.image.id) == other


def uploaded() -> Picture:
    image_made = replace(image(), seed=None, thumbnail_object_key="")
    return Picture(image=image_made, user_id=ALICE, job_id=None, created_at=NOON)


async def test_pictures_come_by_page_newest_first(library: Libraries) -> None:
    mine = [picture(), uploaded(), picture(), uploaded(), picture()]
    others = replace(picture(), user_id=MALLORY)
    await library.record([*mine, others])
    newest = mine[::-1]
    page = await library.page(ALICE, kind=None, before=None, limit=3)
    assert (list(page.pictures), page.next_before) == (newest[:3], newest[2].image.id)
    page = await library.page(ALICE, kind=None, before=page.next_before, limit=3)
    assert (list(page.pictures), page.next_before) == (newest[3:], None)
    page = await library.page(ALICE, kind=PictureKind.UPLOADED, before=None, limit=2)
    assert (list(page.pictures), page.next_before) == ([mine[3], mine[1]], None)
    page = await library.page(ALICE, kind=PictureKind.GENERATED, before=mine[2].image.id, limit=2)
    assert list(page.pictures) == [mine[0]]
    assert [one.kind for one in mine[:2]] == [PictureKind.GENERATED, PictureKind.UPLOADED]


async def test_only_own_pictures_have_object_keys(library: Libraries) -> None:
    mine, other, gone = picture(), replace(picture(), user_id=MALLORY), picture()
    await library.record([mine, other, gone])
    await library.remove(ALICE, gone.image.id)
    asked = [mine.image.id, other.image.id, gone.image.id, ids.new_image_id()]
    assert await library.object_keys(ALICE, asked) == {mine.image.id: mine.image.object_key}
    assert await library.object_keys(ALICE, []) == {}


async def test_what_was_removed_stays_away(library: Libraries) -> None:
    kept, gone = picture(), picture()
    await library.record([kept, gone])
    for user, image_id in ((MALLORY, gone.image.id), (ALICE, ids.new_image_id())):
        with pytest.raises(NotFound):
            await library.remove(user, image_id)
    await library.remove(ALICE, gone.image.id)
    await library.apply([gone], Cursor(1, 1, 1))
    for look in (library.find, library.remove):
        with pytest.raises(NotFound):
            await look(ALICE, gone.image.id)
    page = await library.page(ALICE, kind=None, before=None, limit=9)
    assert list(page.pictures) == [kept]


async def test_the_cursor_begins_before_everything_and_never_goes_back(library: Libraries) -> None:
    assert await library.cursor() == Cursor()
    for cursor, place in (
        (Cursor(1, 700, 2), Cursor(1, 700, 2)),
        (Cursor(1, 700, 1), Cursor(1, 700, 2)),
        (Cursor(1, 699, 9), Cursor(1, 700, 2)),
        (Cursor(2, 1, 1), Cursor(2, 1, 1)),
    ):
        await library.apply([], cursor)
        assert await library.cursor() == place


async def test_pictures_come_with_the_cursor(library: Libraries) -> None:
    kept = picture()
    await library.apply([kept], Cursor(1, 1, 1))
    await library.apply([kept], Cursor(1, 1, 1))
    assert await library.find(ALICE, kept.image.id) == kept


async def test_what_cannot_be_stored_moves_no_cursor(library: Libraries) -> None:
    if isinstance(library, FakeLibrary):
        library.fault = ValueError("no text")
    wrong = picture()
    unfit = replace(wrong, image=replace(wrong.image, media_type="\x00"))
    with pytest.raises(Exception, match=r"no text|0x00"):
        await library.apply([unfit], Cursor(1))
    assert await library.cursor() == Cursor()
