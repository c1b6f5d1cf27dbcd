"""What billing does by itself: follow the feed, ask about expired holds, renew accounts.

Each loop survives whatever a round fails with, and waits before the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from prometheus_client import Counter

from billing.domain.accounts import Account
from billing.domain.feed import Applied, JobEvent
from billing.domain.holds import Hold
from billing.loop.findings import findings
from billing.loop.pause import Pause
from billing.service.accounts import Billing
from billing.service.follower import JobFollower
from easel_kit.errors import DeadlineExceeded, DependencyDown, OutOfRange
from easel_kit.log import get_logger
from easel_kit.telemetry import span

_BATCH = 100

_log = get_logger(__name__)
_events = Counter("easel_billing_events", "Events of the feed, by outcome.", ["outcome"])
_expired = Counter("easel_billing_expired_holds", "Expired holds, by outcome.", ["outcome"])


class SetHealth(Protocol):
    """Says whether the service is up to its work."""

    async def __call__(self, *, serving: bool) -> None:
        """Says it."""
        ...


async def follow_feed(follower: JobFollower, pause: Pause) -> None:
    """Applies the scheduler's events for ever, from the cursor on after every loss."""
    while True:
        try:
            await _read(follower, pause)
        except DependencyDown as error:
            _log.warning("feed.lost", error=str(error))
        except Exception:  # noqa: BLE001 (the cursor stands still: trying again loses nothing)
            _log.exception("feed.failed")
        await pause.wait()


async def sweep_holds(follower: JobFollower, *, interval_s: float) -> None:
    """Asks about the job of every hold past its time, for ever."""
    while True:
        try:
            while await _sweep(follower) == _BATCH:
                pass
        except (DependencyDown, DeadlineExceeded) as error:
            _log.warning("sweep.postponed", error=str(error))
        except Exception:  # noqa: BLE001 (the holds stay as they are until the next round)
            _log.exception("sweep.failed")
        await asyncio.sleep(interval_s)


async def renew_accounts(billing: Billing, *, interval_s: float) -> None:
    """Renews every account that is due, for ever."""
    while True:
        try:
            while await _renew(billing) == _BATCH:
                pass
        except DependencyDown as error:
            _log.warning("renewal.postponed", error=str(error))
        except Exception:  # noqa: BLE001 (an account that is used is renewed by its use)
            _log.exception("renewal.failed")
        await asyncio.sleep(interval_s)


async def watch_database(
    probe: Callable[[], Awaitable[object]],
    set_health: SetHealth,
    *,
    interval_s: float,
) -> None:
    """Says the service is healthy exactly while the database answers, for ever."""
    healthy = True
    while True:
        await asyncio.sleep(interval_s)
        try:
            await probe()
        except DependencyDown:
            answers = False
        else:
            answers = True
        if answers is not healthy:
            healthy = answers
            _log.warning("health.changed", serving=healthy)
            await set_health(serving=healthy)


async def _read(follower: JobFollower, pause: Pause) -> None:
    try:
        async with aclosing(follower.events()) as events:
            async for event in events:
                await _apply(follower, event)
                pause.reset()
    except OutOfRange:
        finding = await follower.restart()
        findings.labels(finding.kind).inc()
        _log.error("feed.gap_found", cursor=finding.reference)
    else:
        _log.info("feed.ended")


async def _apply(follower: JobFollower, event: JobEvent) -> None:
    with span("billing.apply_event", traceparent=event.traceparent, job_id=event.job_id):
        applied = await follower.apply(event)
        _events.labels(applied.outcome.value).inc()
        _report(applied, job_id=event.job_id, user_id=event.user_id)


async def _sweep(follower: JobFollower) -> int:
    return sum([await _resolve(follower, hold) for hold in await follower.expired(_BATCH)])


async def _resolve(follower: JobFollower, hold: Hold) -> bool:
    with span("billing.resolve_hold", traceparent=hold.traceparent, job_id=hold.job_id):
        try:
            applied = await follower.resolve(hold)
        except (DependencyDown, DeadlineExceeded):
            raise
        except Exception:  # noqa: BLE001 (this hold stays as it is; the others have their turn)
            _log.exception("hold.failed", job_id=hold.job_id)
            return False
        _expired.labels(applied.outcome.value).inc()
        _report(applied, job_id=hold.job_id, user_id=hold.user_id or "")
        return True


async def _renew(billing: Billing) -> int:
    return sum([await _renew_one(billing, account) for account in await billing.due(_BATCH)])


async def _renew_one(billing: Billing, account: Account) -> bool:
    try:
        await billing.renew(account)
    except DependencyDown:
        raise
    except Exception:  # noqa: BLE001 (this account stays as it is; the others have their turn)
        _log.exception("account.failed", user_id=account.user_id)
        return False
    _log.info("account.renewed", user_id=account.user_id, plan=account.plan.key)
    return True


def _report(applied: Applied, *, job_id: str, user_id: str) -> None:
    fields: dict[str, object] = {"job_id": job_id, "user_id": user_id}
    if applied.finding is not None:
        findings.labels(applied.finding.kind).inc()
        _log.warning(applied.outcome.value, kind=applied.finding.kind, **fields)
        return
    if applied.hold is not None:
        fields |= {"millicredits": applied.hold.millicredits, "charged": applied.hold.captured}
    _log.info(applied.outcome.value, **fields)
