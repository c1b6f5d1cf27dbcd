"""Real processes, killed between their writes: nothing is lost, charged twice, or run unpaid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from billing.main import migrate
from billing.settings import Settings
from easel_local.testing import Migrate
from tests.chaos_billing.drive import drive
from tests.chaos_billing.house import open_house
from tests.chaos_billing.points import POINTS
from tests.chaos_billing.stories import STORIES


@pytest.fixture
def database(migrated_database: Callable[[str, Migrate], str]) -> str:
    """The address of a migrated database without rows."""

    def prepare(url: str) -> None:
        migrate(Settings(database_url=SecretStr(url)))

    return migrated_database("billing", prepare)


@pytest.mark.timeout(600)
async def test_a_few_kills_of_each_kind_lose_nothing(database: str, tmp_path: Path) -> None:
    brief = [point for point in POINTS if point.is_brief]
    async with open_house(database, tmp_path) as house:
        assert await drive(house, brief, 1, lambda _: None) == []
        assert house.billing.kills == len(brief)


@pytest.mark.timeout(300)
async def test_an_event_that_is_lost_with_its_process_is_found_out(
    database: str, tmp_path: Path
) -> None:
    (point,) = [point for point in POINTS if point.title == "feed: cursor moved"]
    async with open_house(database, tmp_path, plant="cursor-first") as house:
        house.patience_s = 2.0
        broken = await drive(house, [point], 1, lambda _: None)
    assert "the hold is not HOLD_STATE_CAPTURED in time" in {one.text for one in broken}


def test_points_have_names_of_their_own_and_cover_every_operation() -> None:
    assert len({point.title for point in POINTS}) == len(POINTS)
    assert len(POINTS) >= 25
    assert {point.operation for point in POINTS} == set(STORIES)
    assert {point.operation for point in POINTS if point.is_brief} >= set(STORIES) - {"sign-up"}
