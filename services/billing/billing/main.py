"""The composition root of billing, and its one-off commands."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from billing.clients.scheduler import SchedulerEvents, SchedulerJobs, SchedulerQueue
from billing.custody import build_privacy, open_store, start_anchors, start_erasures
from billing.domain.payments import CustomerId
from billing.domain.plans import Catalogue
from billing.loop.entitlements import publish_entitlements
from billing.loop.jobs import follow_feed, renew_accounts, sweep_holds, watch_database
from billing.loop.pause import Pause
from billing.ports.entitlements import Queue
from billing.ports.inbox import Keeper
from billing.ports.jobs import EventFeed, JobResolver
from billing.ports.payments import Payments, WebhookVerifier
from billing.ports.privacy import CustomerRemoval
from billing.rpc import payments as payments_rpc
from billing.rpc import privacy as privacy_rpc
from billing.rpc.servicer import SERVICE, register
from billing.service.accounts import Billing
from billing.service.customers import AccountCustomers
from billing.service.entitlements import EntitlementsPublisher
from billing.service.follower import JobFollower
from billing.service.notices import Notices
from billing.service.payments import PaymentDesk, Refunds
from billing.service.privacy import Privacy
from billing.service.sync import CustomerSync
from billing.settings import Settings, StripeSettings
from billing.storage.accounts import PostgresAccounts
from billing.storage.books import PostgresLedger
from billing.storage.check import Breach, LedgerCheck
from billing.storage.entitlements import PostgresEntitlements
from billing.storage.feed import PostgresFeed
from billing.storage.holds import PostgresHolds
from billing.storage.inbox import PostgresInbox
from billing.storage.payments import PostgresCustomers
from billing.storage.plans import PostgresPlans, read_plan_book
from billing.upkeep import build_reconciliation, start_inbox, start_reconciliation
from easel_kit.clock import Clock, SystemClock
from easel_kit.db import Pool, open_pool
from easel_kit.errors import InvalidState
from easel_kit.lifecycle import Supervisor
from easel_kit.log import get_logger
from easel_kit.objects import ObjectStore
from easel_kit.rpc.channel import open_channel
from easel_kit.rpc.server import RpcServer, build_server
from easel_kit.telemetry import serve_metrics

_SCHEMA = "billing"
_MIGRATIONS = Path(__file__).parent / "migrations"
_SERVICES = (SERVICE, payments_rpc.SERVICE, privacy_rpc.SERVICE)
_PROBE_INTERVAL_S = 5.0
# a check reads every row of the ledger
_CHECK_TIMEOUT_S = 600.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Replacements:
    """What is used instead of the real part; None: the real part."""

    events: EventFeed | None = None
    """Instead of the scheduler's feed."""
    resolver: JobResolver | None = None
    """Instead of the scheduler's answers."""
    queue: Queue | None = None
    """Instead of the scheduler that is told of changed plans."""
    payments: Payments | None = None
    """Instead of Stripe."""
    removal: CustomerRemoval | None = None
    """Deletes customers instead of `payments`."""
    inbox: Keeper | None = None
    """Keeps webhooks instead of the database, and nobody answers them."""


@dataclass(frozen=True, slots=True)
class _Adapters:
    """Opened, or replaced."""

    pool: Pool
    plans: PostgresPlans
    catalogue: Catalogue
    """As published at the start."""
    holds: PostgresHolds
    feed: PostgresFeed
    customers: PostgresCustomers
    inbox: PostgresInbox
    keeper: Keeper
    events: EventFeed
    resolver: JobResolver
    queue: Queue
    payments: Payments | None
    """None without a key of Stripe."""
    removal: CustomerRemoval | None
    objects: ObjectStore | None


@dataclass(frozen=True, slots=True)
class _Uses:
    """Use cases, built; None are those about money where there is none."""

    billing: Billing
    follower: JobFollower
    publisher: EntitlementsPublisher
    privacy: Privacy
    money: tuple[Payments, CustomerSync] | None
    desk: PaymentDesk | None
    notices: Notices | None


async def run(
    settings: Settings,
    stop: asyncio.Event,
    *,
    clock: Clock | None = None,
    replacements: Replacements | None = None,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Serves until `stop` is set, from outside or by a background task that failed.

    Args:
        settings: what to serve with.
        stop: ends it.
        clock: instead of the machine's.
        replacements: of parts that lead outside.
        on_ready: is told the port.

    Raises:
        DependencyDown: the database does not answer at the start.
        InvalidInput: the plans are wrong; names the field.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        stack.callback(serve_metrics(settings.metrics_listen))
        adapters = await _open(settings, clock, stack, replacements or Replacements())
        uses = _build(settings, adapters, clock)
        server = _register(uses)
        side = await stack.enter_async_context(Supervisor(stop))
        serving = server.serving(settings.listen, _SERVICES, grace_s=settings.grace_s)
        await stack.enter_async_context(serving)
        _start_loops(side, settings, adapters, uses, clock)
        probing = watch_database(
            adapters.feed.cursor, server.set_health, interval_s=_PROBE_INTERVAL_S
        )
        side.start("health", probing)
        _log.info("service.ready", port=server.port)
        if on_ready is not None:
            on_ready(server.port)
        await stop.wait()


async def _open(
    settings: Settings, clock: Clock, stack: AsyncExitStack, replaced: Replacements
) -> _Adapters:
    plan_book = read_plan_book(settings.plans_file)
    pool = await stack.enter_async_context(
        open_pool(
            settings.database_url.get_secret_value(),
            schema=_SCHEMA,
            name="billing",
            max_size=settings.database_connections,
        )
    )
    channel = await stack.enter_async_context(open_channel(settings.scheduler_address))
    timeout_s = settings.scheduler_timeout_s
    plans, inbox = PostgresPlans(pool), PostgresInbox(pool)
    payments = replaced.payments or await stack.enter_async_context(open_payments(settings.stripe))
    return _Adapters(
        pool=pool,
        plans=plans,
        catalogue=await plans.publish(plan_book, clock.now()),
        holds=PostgresHolds(pool),
        feed=PostgresFeed(pool),
        customers=PostgresCustomers(pool),
        inbox=inbox,
        keeper=replaced.inbox or inbox,
        events=replaced.events or SchedulerEvents(channel),
        resolver=replaced.resolver or SchedulerJobs(channel, timeout_s=timeout_s),
        queue=replaced.queue or SchedulerQueue(channel, timeout_s=timeout_s),
        payments=payments,
        removal=replaced.removal or payments,
        objects=await stack.enter_async_context(open_store(settings.objects, clock)),
    )


def _build(settings: Settings, adapters: _Adapters, clock: Clock) -> _Uses:
    hold_ttl = timedelta(seconds=settings.hold_ttl_s)
    pool, plans, catalogue = adapters.pool, adapters.plans, adapters.catalogue
    accounts, ledger = PostgresAccounts(pool, plans), PostgresLedger(pool)
    billing = Billing(accounts, adapters.holds, ledger, catalogue, clock, hold_ttl=hold_ttl)
    money = desk = notices = None
    if (payments := adapters.payments) is not None:
        sync = build_sync(settings.stripe, pool, plans, payments, catalogue, clock)
        registry = AccountCustomers(payments, adapters.customers, sync, clock)
        desk = PaymentDesk(billing, payments, registry, catalogue)
        money = payments, sync
    if settings.stripe.webhook_secret.get_secret_value():
        verifier = _verifier(settings.stripe)
        notices = Notices(verifier, adapters.keeper, adapters.customers, payments, clock)
    return _Uses(
        billing=billing,
        follower=JobFollower(
            adapters.holds,
            adapters.feed,
            adapters.events,
            adapters.resolver,
            clock,
            hold_ttl=hold_ttl,
        ),
        publisher=EntitlementsPublisher(PostgresEntitlements(pool, plans), adapters.queue),
        privacy=build_privacy(pool, clock),
        money=money,
        desk=desk,
        notices=notices,
    )


def _register(uses: _Uses) -> RpcServer:
    server = build_server()
    register(server.grpc, uses.billing)
    payments_rpc.register(server.grpc, payments_rpc.MoneyDoor(uses.desk, uses.notices))
    privacy_rpc.register(server.grpc, uses.privacy)
    return server


def _start_loops(
    side: Supervisor, settings: Settings, adapters: _Adapters, uses: _Uses, clock: Clock
) -> None:
    pool, follower, objects = adapters.pool, uses.follower, adapters.objects
    side.start("feed", follow_feed(follower, Pause()))
    side.start("holds", sweep_holds(follower, interval_s=settings.sweep_interval_s))
    side.start("renewals", renew_accounts(uses.billing, interval_s=settings.renewal_interval_s))
    publishing = publish_entitlements(
        uses.publisher, Pause(), interval_s=settings.entitlements_interval_s
    )
    side.start("entitlements", publishing)
    if uses.money is not None and adapters.keeper is adapters.inbox:
        start_inbox(side, settings.inbox, adapters.inbox, uses.money[1], clock)
    reconciliation = build_reconciliation(settings, pool, follower, uses.money, clock)
    start_reconciliation(side, settings, reconciliation, clock)
    start_erasures(side, settings, pool, objects, adapters.removal, follower, clock)
    start_anchors(side, settings, pool, objects, clock)


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


@asynccontextmanager
async def open_payments(settings: StripeSettings) -> AsyncIterator[Payments | None]:
    """Stripe, or its stand-in; None without a key."""
    if not settings.is_on:
        yield None
        return
    # takes two seconds: only where there is money
    from billing.clients.stripe.calls import open_stripe  # noqa: PLC0415
    from billing.clients.stripe.payments import StripePayments  # noqa: PLC0415

    async with open_stripe(
        settings.secret_key.get_secret_value(),
        api_url=settings.api_url,
        timeout_s=settings.timeout_s,
        max_retries=settings.max_retries,
    ) as calls:
        yield StripePayments(calls)


def refund(settings: Settings, arguments: argparse.Namespace) -> None:
    """Gives a payment back, or `--cents` of it, and takes the credits that it bought."""

    async def act() -> str:
        async with open_money(settings) as (payments, customers, sync):
            refunds = Refunds(payments, customers, sync, SystemClock())
            return await refunds.refund(arguments.payment, arguments.cents)

    sys.stdout.write(f"refunded: {asyncio.run(act())}\n")


def declare_refund(parser: argparse.ArgumentParser) -> None:
    """The arguments of `refund`."""
    parser.add_argument("--payment", required=True, metavar="pi_…", help="Stripe's id")
    parser.add_argument("--cents", type=_cents, help="of the payment; all that is left otherwise")


def sync_customer(settings: Settings, arguments: argparse.Namespace) -> None:
    """Looks at a customer again and applies what Stripe says."""

    async def act() -> bool:
        async with open_money(settings) as (_, _, sync):
            return await sync.sync(CustomerId(arguments.customer))

    sys.stdout.write(f"{arguments.customer}: {'changed' if asyncio.run(act()) else 'as before'}\n")


def declare_sync(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sync`."""
    parser.add_argument("customer", metavar="cus_…", help="Stripe's id")


@asynccontextmanager
async def open_money(
    settings: Settings, clock: Clock | None = None
) -> AsyncIterator[tuple[Payments, PostgresCustomers, CustomerSync]]:
    """What a command about money needs.

    Raises:
        InvalidState: no payments are set up.
    """
    clock = clock or SystemClock()
    async with (
        open_payments(settings.stripe) as payments,
        open_pool(
            settings.database_url.get_secret_value(),
            schema=_SCHEMA,
            name="billing command",
            max_size=2,
        ) as pool,
    ):
        if payments is None:
            raise InvalidState("payments are not set up here: stripe.secret_key is empty")
        plans = PostgresPlans(pool)
        catalogue = await plans.publish(read_plan_book(settings.plans_file), clock.now())
        sync = build_sync(settings.stripe, pool, plans, payments, catalogue, clock)
        yield payments, PostgresCustomers(pool), sync


def build_sync(  # noqa: PLR0917 (a composition)
    settings: StripeSettings,
    pool: Pool,
    plans: PostgresPlans,
    payments: Payments,
    catalogue: Catalogue,
    clock: Clock,
) -> CustomerSync:
    """The one handler that brings a customer's state here to Stripe's."""
    return CustomerSync(
        payments,
        PostgresCustomers(pool),
        plans,
        catalogue,
        clock,
        credit_grace=timedelta(seconds=settings.credit_grace_s),
    )


def _verifier(settings: StripeSettings) -> WebhookVerifier:
    from billing.clients.stripe.webhooks import StripeWebhookVerifier  # noqa: PLC0415 (as above)

    return StripeWebhookVerifier(
        settings.webhook_secret.get_secret_value(),
        settings.previous_webhook_secret.get_secret_value(),
        is_live=settings.is_live,
    )


def _cents(text: str) -> int:
    cents = int(text)
    if cents < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return cents
