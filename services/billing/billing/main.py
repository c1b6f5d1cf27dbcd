"""The composition root of billing, and its one-off commands."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from billing.clients.scheduler import SchedulerEvents, SchedulerJobs, SchedulerQueue
from billing.loop.entitlements import publish_entitlements
from billing.loop.jobs import follow_feed, renew_accounts, sweep_holds, watch_database
from billing.loop.pause import Pause
from billing.ports.entitlements import Queue
from billing.ports.jobs import EventFeed, JobResolver
from billing.rpc.servicer import SERVICE, register
from billing.service.accounts import Billing
from billing.service.entitlements import EntitlementsPublisher
from billing.service.follower import JobFollower
from billing.settings import Settings
from billing.storage.accounts import PostgresAccounts
from billing.storage.books import PostgresLedger
from billing.storage.check import Breach, LedgerCheck
from billing.storage.entitlements import PostgresEntitlements
from billing.storage.feed import PostgresFeed
from billing.storage.holds import PostgresHolds
from billing.storage.plans import PostgresPlans, read_plan_book
from easel_kit.clock import Clock, SystemClock
from easel_kit.db import open_pool
from easel_kit.lifecycle import Supervisor
from easel_kit.log import get_logger
from easel_kit.rpc.channel import open_channel
from easel_kit.rpc.server import build_server
from easel_kit.telemetry import serve_metrics

_SCHEMA = "billing"
_MIGRATIONS = Path(__file__).parent / "migrations"
_PROBE_INTERVAL_S = 5.0
# a check reads every row of the ledger
_CHECK_TIMEOUT_S = 600.0

_log = get_logger(__name__)


async def run(
    settings: Settings,
    stop: asyncio.Event,
    *,
    clock: Clock | None = None,
    events: EventFeed | None = None,
    resolver: JobResolver | None = None,
    queue: Queue | None = None,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Serves until `stop` is set.

    Args:
        settings: what to serve with.
        stop: set from outside, or by a background task that failed.
        clock: instead of the machine's.
        events: instead of the scheduler's feed.
        resolver: instead of the scheduler's answers.
        queue: instead of the scheduler that is told of changed plans.
        on_ready: is told the port.

    Raises:
        DependencyDown: the database does not answer at the start.
        InvalidInput: the plans are wrong; names the field.
    """
    clock = clock or SystemClock()
    hold_ttl = timedelta(seconds=settings.hold_ttl_s)
    plan_book = read_plan_book(settings.plans_file)
    async with AsyncExitStack() as stack:
        stack.callback(serve_metrics(settings.metrics_listen))
        pool = await stack.enter_async_context(
            open_pool(
                settings.database_url.get_secret_value(),
                schema=_SCHEMA,
                name="billing",
                max_size=settings.database_connections,
            )
        )
        channel = await stack.enter_async_context(open_channel(settings.scheduler_address))
        plans = PostgresPlans(pool)
        catalogue = await plans.publish(plan_book, clock.now())
        holds, feed = PostgresHolds(pool), PostgresFeed(pool)
        billing = Billing(
            PostgresAccounts(pool, plans),
            holds,
            PostgresLedger(pool),
            catalogue,
            clock,
            hold_ttl=hold_ttl,
        )
        follower = JobFollower(
            holds,
            feed,
            events or SchedulerEvents(channel),
            resolver or SchedulerJobs(channel, timeout_s=settings.scheduler_timeout_s),
            clock,
            hold_ttl=hold_ttl,
        )
        publisher = EntitlementsPublisher(
            PostgresEntitlements(pool, plans),
            queue or SchedulerQueue(channel, timeout_s=settings.scheduler_timeout_s),
        )
        server = build_server()
        register(server.grpc, billing)
        side = await stack.enter_async_context(Supervisor(stop))
        await stack.enter_async_context(
            server.serving(settings.listen, [SERVICE], grace_s=settings.grace_s)
        )
        side.start("feed", follow_feed(follower, Pause()))
        side.start("holds", sweep_holds(follower, interval_s=settings.sweep_interval_s))
        side.start("renewals", renew_accounts(billing, interval_s=settings.renewal_interval_s))
        side.start(
            "entitlements",
            publish_entitlements(publisher, Pause(), interval_s=settings.entitlements_interval_s),
        )
        side.start(
            "health", watch_database(feed.cursor, server.set_health, interval_s=_PROBE_INTERVAL_S)
        )
        _log.info("service.ready", port=server.port)
        if on_ready is not None:
            on_ready(server.port)
        await stop.wait()


def migrate(settings: Settings) -> None:
    """Brings the schema to its newest form."""
    from easel_kit import migrations  # noqa: PLC0415 (serving does without Alembic)

    migrations.upgrade(_MIGRATIONS, settings.database_url.get_secret_value(), _SCHEMA)
    _log.info("schema.migrated")


def ledger_check(settings: Settings) -> None:
    """Prints everything in the ledger that does not add up; exits with 1 when there is anything."""
    breaches = asyncio.run(_check(settings))
    for breach in breaches:
        sys.stdout.write(f"{breach.invariant}: {breach.reference}\n")
    sys.stdout.write(f"ledger-check: {len(breaches)} findings\n")
    if breaches:
        sys.exit(1)


async def _check(settings: Settings) -> Sequence[Breach]:
    async with open_pool(
        settings.database_url.get_secret_value(),
        schema=_SCHEMA,
        name="billing ledger-check",
        max_size=1,
        command_timeout_s=_CHECK_TIMEOUT_S,
    ) as pool:
        return await LedgerCheck(pool).run()
