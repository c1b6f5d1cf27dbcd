"""One-off commands about webhooks and reconciliation."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from billing.clients.scheduler import SchedulerEvents, SchedulerJobs
from billing.domain.inbox import EventState, KeptEvent
from billing.domain.reconciliation import RunKind, RunReport
from billing.main import build_sync, open_payments
from billing.service.follower import JobFollower
from billing.settings import Settings
from billing.storage.feed import PostgresFeed
from billing.storage.holds import PostgresHolds
from billing.storage.inbox import PostgresInbox
from billing.storage.plans import PostgresPlans, read_plan_book
from billing.upkeep import build_reconciliation
from easel_kit.clock import SystemClock
from easel_kit.db import Pool, open_pool
from easel_kit.lifecycle import Command
from easel_kit.rpc.channel import open_channel

# reconciliation reads every row of the ledger
_TIMEOUT_S = 600.0
# reconciliation keeps one for its lock
_CONNECTIONS = 3
_SHOWN = 100


def list_inbox(settings: Settings, arguments: argparse.Namespace) -> None:
    """Prints the newest events, a line each: state, tries, time, id, type, customer, error."""
    state = None if arguments.state is None else EventState(arguments.state)

    async def read() -> tuple[Sequence[KeptEvent], dict[EventState, int]]:
        async with _pool(settings) as pool:
            inbox = PostgresInbox(pool)
            return await inbox.list(state, arguments.limit), dict((await inbox.figures()).counts)

    events, counts = asyncio.run(read())
    for event in events:
        sys.stdout.write(_line(event) + "\n")
    figures = ", ".join(f"{counts.get(one, 0)} {one.value}" for one in EventState)
    sys.stdout.write(f"inbox: {figures}\n")


def replay(settings: Settings, arguments: argparse.Namespace) -> None:
    """Makes events due again with all their tries; exits with 1 when one could not be."""
    wanted: list[str] | None = None if arguments.all_dead else arguments.events

    async def act() -> Sequence[str]:
        async with _pool(settings) as pool:
            return await PostgresInbox(pool).replay(wanted, SystemClock().now())

    done = asyncio.run(act())
    missing = set(wanted or ()) - set(done)
    for event_id in done:
        sys.stdout.write(f"{event_id}: due again\n")
    for event_id in sorted(missing):
        sys.stdout.write(f"{event_id}: unknown, without a customer, or open already\n")
    sys.stdout.write(f"replay: {len(done)} events\n")
    if missing:
        sys.exit(1)


def reconcile(settings: Settings, arguments: argparse.Namespace) -> None:
    """Reconciles at once and prints what was found; exits with 1 when there is anything."""
    kind = RunKind.NIGHTLY if arguments.nightly else RunKind.HOURLY
    report = asyncio.run(_reconcile(settings, kind))
    for recorded in report.findings:
        finding = recorded.finding
        words = ", ".join(f"{key}: {value}" for key, value in finding.detail.items())
        note = "" if recorded.is_new else " (known)"
        sys.stdout.write(f"{finding.kind} {finding.reference}: {words}{note}\n")
    for name in report.failed:
        sys.stdout.write(f"not checked, as a dependency is away: {name}\n")
    sys.stdout.write(f"reconcile {kind.value}: {len(report.findings)} findings\n")
    if report.findings or report.failed:
        sys.exit(1)


async def _reconcile(settings: Settings, kind: RunKind) -> RunReport:
    clock = SystemClock()
    async with (
        _pool(settings) as pool,
        open_channel(settings.scheduler_address) as channel,
        open_payments(settings.stripe) as payments,
    ):
        follower = JobFollower(
            PostgresHolds(pool),
            PostgresFeed(pool),
            SchedulerEvents(channel),
            SchedulerJobs(channel, timeout_s=settings.scheduler_timeout_s),
            clock,
            hold_ttl=timedelta(seconds=settings.hold_ttl_s),
        )
        money = None
        if payments is not None:
            plans = PostgresPlans(pool)
            catalogue = await plans.publish(read_plan_book(settings.plans_file), clock.now())
            money = payments, build_sync(settings.stripe, pool, plans, payments, catalogue, clock)
        reconciliation = build_reconciliation(settings, pool, follower, money, clock)
        return await reconciliation.run_now(kind)


@asynccontextmanager
async def _pool(settings: Settings) -> AsyncIterator[Pool]:
    async with open_pool(
        settings.database_url.get_secret_value(),
        schema="billing",
        name="billing command",
        max_size=_CONNECTIONS,
        command_timeout_s=_TIMEOUT_S,
    ) as pool:
        yield pool


def _line(event: KeptEvent) -> str:
    words = [
        f"{event.state.value:8}",
        str(event.attempts),
        event.received_at.isoformat(timespec="seconds"),
        event.event_id,
        event.type,
        event.customer_id or "-",
        event.error,
    ]
    return " ".join(words).rstrip()


def _declare_inbox(parser: argparse.ArgumentParser) -> None:
    states = [state.value for state in EventState]
    parser.add_argument("--state", choices=states, help="only events in this state")
    parser.add_argument("--limit", type=int, default=_SHOWN, help=f"at most so many ({_SHOWN})")


def _declare_replay(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("events", nargs="*", default=[], metavar="EVENT", help="Stripe's ids")
    which.add_argument("--all-dead", action="store_true", help="everything that gave up")


def _declare_reconcile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nightly", action="store_true", help="everyone and the whole ledger")


INBOX: Command[Settings] = Command(list_inbox, _declare_inbox)
REPLAY: Command[Settings] = Command(replay, _declare_replay)
RECONCILE: Command[Settings] = Command(reconcile, _declare_reconcile)
