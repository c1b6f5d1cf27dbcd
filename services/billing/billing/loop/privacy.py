"""What billing does by itself for privacy: take erasures on, anchor the audit log."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter, Gauge

from billing.service.erasing import Eraser
from easel_kit.anchors import AuditAnchors
from easel_kit.erasing import take_on
from easel_kit.errors import DependencyDown
from easel_kit.log import get_logger

_log = get_logger(__name__)
_erased = Counter("easel_billing_erasures", "Erasures finished.")
_failing = Gauge("easel_billing_erasures_failing", "Erasures whose last try failed, of one round.")
_anchored = Counter(
    "easel_billing_audit_anchors", "Anchors of the audit log put, by what came.", ["outcome"]
)


async def erase_accounts(eraser: Eraser, *, interval_s: float) -> None:
    """Takes every erasure on, for ever."""
    await take_on(eraser, interval_s=interval_s, erased=_erased, failing=_failing)


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
