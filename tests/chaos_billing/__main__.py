"""`python -m tests.chaos_billing --times N`: kills billing at every named point and judges it."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from pydantic import SecretStr

from billing.main import migrate
from billing.settings import Settings
from easel_local.postgres import Postgres
from tests.chaos_billing.drive import Broken, drive
from tests.chaos_billing.house import open_house
from tests.chaos_billing.points import POINTS, Point


def main() -> int:
    """0: every promise was kept; 1: some was broken."""
    arguments = _arguments()
    points = [point for point in POINTS if arguments.only in point.title]
    folder = Path(tempfile.mkdtemp(prefix="easel-chaos-billing-"))
    begun = time.monotonic()
    broken = asyncio.run(_run(folder, points, arguments.times))
    took_s = time.monotonic() - begun
    kills = len(points) * arguments.times
    _say(f"{kills} kills at {len(points)} points in {took_s:.0f} s: {len(broken)} broken promises")
    for one in broken:
        _say(f"BROKEN {one.point}: {one.text}")
    if broken:
        _say(f"kept: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


async def _run(folder: Path, points: list[Point], times: int) -> list[Broken]:
    async with Postgres(folder / "postgres", durable=False) as postgres:
        settings = Settings(database_url=SecretStr(postgres.url))
        await asyncio.to_thread(migrate, settings)
        async with open_house(postgres.url, folder) as house:
            return await drive(house, points, times, _say)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos_billing",
        description="Kills a real billing at named points between its writes, starts it again, "
        "lets its callers repeat their calls, and checks that nothing is lost, charged twice or "
        "run unpaid. Exit status: 0 all kept, 1 a promise was broken.",
    )
    parser.add_argument("--times", type=int, default=1, metavar="N", help="each point (1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="points with this in their name")
    return parser.parse_args()


def _say(words: str) -> None:
    print(words, flush=True)  # noqa: T201 (a command line)


if __name__ == "__main__":
    sys.exit(main())
