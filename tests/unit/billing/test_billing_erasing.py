"""How erasures rest and go on when something they need is away."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from billing.domain.privacy import Erasure, ErasureState
from billing.loop.privacy import erase_accounts
from easel_kit.erasing import reapply
from easel_kit.erasure import UserHash, hash_of, pause_after
from easel_kit.errors import DependencyDown
from easel_kit.ids import UserId

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def erasure(name: str, failures: int = 0) -> Erasure:
    user = UserHash(name.encode().ljust(32))
    return Erasure(name, user, None, ErasureState.REQUESTED, NOW, None, failures)


class ScriptedEraser:
    """Answers what it was told, and remembers what was postponed."""

    def __init__(self) -> None:
        self.postponed: list[str] = []
        self.advanced: list[str] = []
        self.rounds = 0
        self.reapplied = 0
        self.done = asyncio.Event()

    async def due(self, limit: int) -> list[Erasure]:
        assert limit >= 1
        self.rounds += 1
        if self.rounds == 1:
            raise DependencyDown("the database is away")
        if self.rounds == 2:
            raise OSError("planted")
        if self.rounds == 4:
            self.done.set()
        return [erasure("away"), erasure("broken"), erasure("fine")]

    async def advance(self, one: Erasure) -> ErasureState:
        if one.id == "away":
            raise DependencyDown("Stripe is away")
        if one.id == "broken":
            raise ValueError("planted")
        self.advanced.append(one.id)
        return ErasureState.DONE

    async def postpone(self, one: Erasure) -> None:
        self.postponed.append(one.id)

    async def reapply(self) -> int:
        self.reapplied += 1
        self.done.set()
        raise DependencyDown("the store is away")


async def run_until(done: asyncio.Event, work: Any) -> None:  # noqa: ANN401 (any of the loops)
    task = asyncio.create_task(work)
    await asyncio.wait_for(done.wait(), 10)
    task.cancel()
    await asyncio.wait({task})


async def test_one_erasure_that_fails_rests_and_the_others_go_on() -> None:
    eraser: Any = ScriptedEraser()
    await run_until(eraser.done, erase_accounts(eraser, interval_s=0))
    assert eraser.advanced[0] == "fine"
    assert eraser.postponed[:2] == ["away", "broken"]


async def test_a_store_that_is_away_at_the_start_ends_nothing() -> None:
    eraser: Any = ScriptedEraser()
    await run_until(eraser.done, reapply(eraser))
    assert eraser.reapplied == 1


def test_a_step_that_fails_rests_longer_each_time_up_to_ten_minutes() -> None:
    pauses = [pause_after(failures).total_seconds() for failures in (0, 1, 2, 6, 7, 1_000_000)]
    assert pauses == [5, 10, 20, 320, 600, 600]
    assert pause_after(0) == timedelta(seconds=5)


def test_a_hash_is_of_one_user_and_stays_the_same_for_good() -> None:
    assert hash_of(UserId("alice")) != hash_of(UserId("alice2"))
    assert hash_of(UserId("alice")).hex() == (
        hashlib.sha256(b"easel.erased-user.v1:alice").hexdigest()
    )
