"""The part of the composition root about people's data and the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from billing.clients.absent import NoCustomers, NoGraveyard
from billing.loop.privacy import anchor_audit, erase_accounts
from billing.ports.privacy import CustomerRemoval
from billing.service.erasing import Eraser
from billing.service.follower import JobFollower
from billing.service.privacy import Privacy
from billing.settings import Settings
from billing.storage.erasures import PostgresErasures
from billing.storage.exports import PostgresExports
from easel_kit.anchors import AuditAnchors
from easel_kit.clock import Clock
from easel_kit.db import Pool
from easel_kit.erasing import reapply
from easel_kit.graveyard import ObjectGraveyard
from easel_kit.lifecycle import Supervisor
from easel_kit.log import get_logger
from easel_kit.objects import ObjectSettings, ObjectStore, open_object_store

SERVICE_NAME = "billing"
"""Of the anchors' keys."""

_log = get_logger(__name__)


@asynccontextmanager
async def open_store(
    settings: ObjectSettings | None, clock: Clock
) -> AsyncIterator[ObjectStore | None]:
    """The store of anchors and tombstones; None, with a warning, where none is set."""
    if settings is None:
        _log.warning(
            "audit.unanchored",
            setting="BILLING_OBJECTS__URL",
            consequence="a rewritten audit log is not found; a restore brings the erased back",
        )
        yield None
        return
    async with open_object_store(settings, clock) as store:
        yield store


def build_privacy(pool: Pool, clock: Clock) -> Privacy:
    """Export and erasure, as they are asked for."""
    return Privacy(PostgresErasures(pool), PostgresExports(pool), clock)


def start_erasures(  # noqa: PLR0917 (a composition)
    side: Supervisor,
    settings: Settings,
    pool: Pool,
    store: ObjectStore | None,
    removal: CustomerRemoval | None,
    follower: JobFollower,
    clock: Clock,
) -> None:
    """Takes erasures on, and applies tombstones again after a restore."""
    eraser = Eraser(
        PostgresErasures(pool),
        NoGraveyard() if store is None else ObjectGraveyard(store, "billing"),
        removal or NoCustomers(),
        follower,
        clock,
    )
    side.start("erasures", erase_accounts(eraser, interval_s=settings.erasure_interval_s))
    side.start("tombstones", reapply(eraser))


def start_anchors(
    side: Supervisor, settings: Settings, pool: Pool, store: ObjectStore | None, clock: Clock
) -> None:
    """Anchors the audit log where there is a store."""
    if store is not None:
        anchors = AuditAnchors(pool, store, clock, service=SERVICE_NAME)
        work = anchor_audit(anchors, interval_s=settings.audit_anchor_interval_s)
        side.start("anchors", work)
