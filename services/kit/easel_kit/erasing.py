"""How a service takes its erasures on by itself, and applies tombstones again after a restore."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, TypeVar

from prometheus_client import Counter, Gauge

from easel_kit.errors import DeadlineExceeded, DependencyDown, Overloaded
from easel_kit.log import get_logger

_BATCH = 100
_DONE = "done"
# a look at every user that a service knows; who is found came from a restored backup
_REAPPLY_INTERVAL_S = 3_600.0
_RETRY_S = 5.0
_PASSING = (DependencyDown, DeadlineExceeded, Overloaded)

_log = get_logger(__name__)


class Named(Protocol):
    """An erasure."""

    @property
    def id(self) -> str:
        """Names it in logs; leads to nobody."""
        ...


OneErasure = TypeVar("OneErasure", bound=Named)


class Eraser(Protocol[OneErasure]):
    """What takes erasures from step to step."""

    async def due(self, limit: int) -> Sequence[OneErasure]:
        """Unfinished erasures that can be tried."""
        ...

    async def advance(self, erasure: OneErasure) -> StrEnum:
        """Takes an erasure as far as it goes now, and answers with its state; the last is `done`.

        Raises:
            DependencyDown: something is away; what was done stays done.
            DeadlineExceeded: as DependencyDown.
            Overloaded: as DependencyDown.
        """
        ...

    async def postpone(self, erasure: OneErasure) -> None:
        """Lets an erasure rest whose step failed, longer each time."""
        ...

    async def reapply(self) -> int:
        """Erases again who came back with a restore from a backup; answers how many."""
        ...


async def take_on(
    eraser: Eraser[OneErasure], *, interval_s: float, erased: Counter, failing: Gauge
) -> None:
    """Takes every erasure on, for ever.

    Args:
        eraser: knows the steps.
        interval_s: between rounds.
        erased: counts erasures that are done.
        failing: shows how many could not be taken on in the last round.
    """
    while True:
        try:
            erasures = await eraser.due(_BATCH)
            failing.set(sum([not await _advance(eraser, one, erased) for one in erasures]))
        except _PASSING as error:
            _log.warning("erasures.postponed", reason=str(error))
        except Exception:  # noqa: BLE001 (the erasures stay as they are until the next round)
            _log.exception("erasures.failed")
        await asyncio.sleep(interval_s)


async def reapply(eraser: Eraser[OneErasure]) -> None:
    """Erases again who came back with a restore: at the start and then every hour, for ever."""
    while True:
        pause_s = _REAPPLY_INTERVAL_S
        try:
            if count := await eraser.reapply():
                _log.warning("erasures.reapplied", count=count)
        except _PASSING as error:
            _log.warning("reapplying.postponed", reason=str(error))
            pause_s = _RETRY_S
        except Exception:  # noqa: BLE001 (looked at again in a while)
            _log.exception("reapplying.failed")
        await asyncio.sleep(pause_s)


async def _advance(eraser: Eraser[OneErasure], erasure: OneErasure, erased: Counter) -> bool:
    try:
        state = await eraser.advance(erasure)
    except _PASSING as error:
        _log.warning("erasure.postponed", erasure_id=erasure.id, reason=str(error))
    except Exception:  # noqa: BLE001 (this one is tried again; the others have their turn)
        _log.exception("erasure.failed", erasure_id=erasure.id)
    else:
        if state == _DONE:
            erased.inc()
        _log.info("erasure.advanced", erasure_id=erasure.id, state=state.value)
        return True
    await eraser.postpone(erasure)
    return False
