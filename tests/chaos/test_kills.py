"""Real processes, twenty kills: nothing accepted is lost, nothing is accepted twice."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.chaos.checks import check
from tests.chaos.drive import Orders, drive
from tests.chaos.figures import describe
from tests.chaos.history import read
from tests.chaos.killer import draw_plan

KILLS, SEED, PAUSE_S = 20, 3, 0.7


@pytest.mark.timeout(170)
def test_twenty_kills_lose_nothing() -> None:
    folder = Path(tempfile.mkdtemp(prefix="easel-chaos-"))  # pytest's own goes with a good run
    orders = Orders(KILLS, SEED, folder, pause_s=PAUSE_S)
    history = read(asyncio.run(drive(orders, lambda _: None)))
    violations = check(history)
    assert not violations, f"{folder}\n{describe(history)}\n{violations[:10]}"
    shutil.rmtree(folder)


def test_a_plan_follows_from_its_seed_and_hits_everything() -> None:
    plan = draw_plan(KILLS, SEED, pause_s=PAUSE_S)
    assert plan == draw_plan(KILLS, SEED, pause_s=PAUSE_S)
    assert plan != draw_plan(KILLS, SEED + 1, pause_s=PAUSE_S)
    assert [strike.number for strike in plan] == list(range(1, KILLS + 1))
    assert len({strike.what for strike in plan}) == 7
    assert any(strike.pause_s == 0 for strike in plan)
