"""What billing does by itself for privacy: take erasures on, apply tombstones again, anchor."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter, Gauge

from billing.domain.privacy import Erasure, ErasureState
from billing.service.erasing import Eraser
from easel_kit.anchors import AuditAnchors
from easel_kit.errors import DeadlineExceeded, DependencyDown
from easel_kit.log import get_logger

_BATCH = 100
# a look at every account; what it finds came from a restored backup
_REAPPLY_INTERVAL_S = 3_600.0
_RETRY_S = 5.0

_log = get_logger(__name__)
_erased = Counter("easel_billing_erasures", "Erasures finished.")
_stuck = Gauge("easel_billing_erasures_failing", "Erasures whose last try failed, of one round.")
_anchored = Counter(
    "easel_billing_audit_anchors", "Anchors of the audit log put, by what came.", ["outcome"]
)


async def erase_accounts(eraser: Eraser, *, interval_s: float) -> None:
    """Takes every erasure on, for ever."""
    while True:
        try:
            erasures = await eraser.due(_BATCH)
            _stuck.set(sum([not await _advance(eraser, one) for one in erasures]))
        except DependencyDown as error:
            _log.warning("erasures.postponed", error=str(error))
        except Exception:  # noqa: BLE001 (the erasures stay as they are until the next round)
            _log.exception("erasures.failed")
        await asyncio.sleep(interval_s)


async def reapply_erasures(eraser: Eraser) -> None:
    """Erases again who came back with a restore: at the start and then every hour, for ever."""
    while True:
        pause_s = _REAPPLY_INTERVAL_S
        try:
            if count := await eraser.reapply():
                _log.warning("erasures.reapplied", count=count)
        except DependencyDown as error:
            _log.warning("reapplying.postponed", error=str(error))
            pause_s = _RETRY_S
        except Exception:  # noqa: BLE001 (looked at again in a while)
            _log.exception("reapplying.failed")
        await asyncio.sleep(pause_s)


async def anchor_audit(anchors: AuditAnchors, *, interval_s: float) -> None:
    """Anchors what the audit log has grown by, for ever."""
    while True:
        try:
            anchored = await anchors.anchor()
            _anchored.labels("anchored").inc(len(anchored.anchors))
            _anchored.labels("contradicted").inc(len(anchored.contradictions))
            for key in anchored.contradictions:
                _log.error("audit.contradicted", key=key)
        except DependencyDown as error:
            _anchored.labels("postponed").inc()
            _log.warning("anchoring.postponed", error=str(error))
        except Exception:  # noqa: BLE001 (the log is anchored by a later round)
            _log.exception("anchoring.failed")
        await asyncio.sleep(interval_s)


async def _advance(eraser: Eraser, erasure: Erasure) -> bool:
    try:
        state = await eraser.advance(erasure)
    except (DependencyDown, DeadlineExceeded) as error:
        _log.warning("erasure.postponed", erasure_id=erasure.id, error=str(error))
    except Exception:  # noqa: BLE001 (this one is tried again; the others have their turn)
        _log.exception("erasure.failed", erasure_id=erasure.id)
    else:
        if state is ErasureState.DONE:
            _erased.inc()
        _log.info("erasure.advanced", erasure_id=erasure.id, state=state.value)
        return True
    await eraser.postpone(erasure)
    return False
