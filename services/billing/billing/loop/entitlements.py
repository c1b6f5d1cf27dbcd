"""Telling the scheduler of changed plans, for ever."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter

from billing.domain.accounts import AccountId, EntitlementsChange
from billing.loop.pause import Pause
from billing.service.entitlements import EntitlementsPublisher
from easel_kit.errors import DeadlineExceeded, DependencyDown
from easel_kit.log import get_logger

_BATCH = 100

_log = get_logger(__name__)
_published = Counter(
    "easel_billing_entitlements", "Changed plans told to the scheduler, by outcome.", ["outcome"]
)


async def publish_entitlements(
    publisher: EntitlementsPublisher, pause: Pause, *, interval_s: float
) -> None:
    """Publishes every change of a plan; while the scheduler is away, less and less often."""
    while True:
        try:
            await _publish_all(publisher)
        except (DependencyDown, DeadlineExceeded) as error:
            _log.warning("entitlements.postponed", error=str(error))
            await pause.wait()
        except Exception:  # noqa: BLE001 (the outbox keeps what was not published)
            _log.exception("entitlements.failed")
            await pause.wait()
        else:
            pause.reset()
            await asyncio.sleep(interval_s)


async def _publish_all(publisher: EntitlementsPublisher) -> None:
    after: AccountId | None = None
    while changes := await publisher.pending(after, _BATCH):
        for change in changes:
            await _publish(publisher, change)
        after = changes[-1].account_id


async def _publish(publisher: EntitlementsPublisher, change: EntitlementsChange) -> None:
    try:
        await publisher.publish(change)
    except (DependencyDown, DeadlineExceeded):
        raise
    except Exception:  # noqa: BLE001 (this change stays; the others have their turn)
        _published.labels("failed").inc()
        _log.exception("entitlements.refused", user_id=change.user_id)
    else:
        _published.labels("published").inc()
        _log.info(
            "entitlements.published",
            user_id=change.user_id,
            plan=change.plan.key,
            entitlements_version=change.version,
        )
