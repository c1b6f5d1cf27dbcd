"""One point after the other: set the trap, act, die, come back, act again, judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.chaos_billing.house import House
from tests.chaos_billing.points import Point
from tests.chaos_billing.stories import STORIES, Story, acted

_TRIES = 40
_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was not kept after a kill at a point."""

    point: str
    text: str


async def drive(
    house: House, points: Sequence[Point], times: int, say: Callable[[str], None]
) -> list[Broken]:
    """Each point so many times; all promises that were broken."""
    broken: list[Broken] = []
    for point in points:
        for time in range(times):
            user = f"{point.operation}-{points.index(point)}-{time}"
            faults = await kill_at(house, point, STORIES[point.operation](house, user))
            faults += await house.breaches()
            broken += [Broken(point.title, fault) for fault in faults]
            say(f"{'BROKEN' if faults else 'kept':6} {point.title} {'; '.join(faults)}".rstrip())
    findings = await house.database.fetch("SELECT kind, reference FROM reconciliation_findings")
    return broken + [Broken("at the end", f"finding {row[0]} {row[1]}") for row in findings]


async def kill_at(house: House, point: Point, story: Story) -> list[str]:
    """Kills billing in a story; what is wrong afterwards."""
    await house.run(hold_ttl_s=story.hold_ttl_s, with_stripe=story.with_stripe)
    await story.prepare()
    await house.billing.arm(point.spot)
    acting = asyncio.create_task(acted(story))
    try:
        await house.billing.died()
    except TimeoutError:
        return ["it was never there"]
    finally:
        acting.cancel()
        with suppress(asyncio.CancelledError):
            await acting
    await house.run(hold_ttl_s=story.hold_ttl_s, with_stripe=story.with_stripe)
    for _ in range(_TRIES):
        if await acted(story):
            return await story.judge()
        await asyncio.sleep(_PAUSE_S)
    return ["its caller got no answer any more"]
