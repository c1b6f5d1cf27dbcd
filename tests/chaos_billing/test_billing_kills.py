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


@pytest.mark.timeout(300)
async def test_a_few_kills_of_each_kind_lose_nothing(
    migrated_database: Callable[[str, Migrate], str], tmp_path: Path
) -> None:
    def prepare(url: str) -> None:
        migrate(Settings(database_url=SecretStr(url)))

    brief = [point for point in POINTS if point.is_brief]
    async with open_house(migrated_database("billing", prepare), tmp_path) as house:
        assert await drive(house, brief, 1, lambda _: None) == []
        assert house.billing.kills == len(brief)


def test_points_have_names_of_their_own_and_cover_every_operation() -> None:
    assert len({point.title for point in POINTS}) == len(POINTS)
    assert len(POINTS) >= 25
    assert {point.operation for point in POINTS} == set(STORIES)
    assert {point.operation for point in POINTS if point.is_brief} >= set(STORIES) - {"sign-up"}
