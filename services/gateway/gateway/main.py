"""The composition root: settings in, the gateway out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI

from easel_kit.clock import Clock, SystemClock
from easel_kit.db import open_pool
from easel_kit.erasing import reapply
from easel_kit.graveyard import ObjectGraveyard
from easel_kit.lifecycle import Supervisor
from easel_kit.log import get_logger
from easel_kit.objects import FolderStore, ObjectStore, open_object_store
from easel_kit.rpc.channel import open_channel
from easel_kit.telemetry import serve_metrics
from gateway.app import build_app
from gateway.auth import JwtVerifier
from gateway.clients.billing import BillingClient
from gateway.clients.darkroom import PillowDarkroom
from gateway.clients.payments import PaymentsClient
from gateway.clients.privacy import AccountPrivacyClient
from gateway.clients.scheduler import SchedulerClient
from gateway.jwks import JwksCache
from gateway.loop.feed import follow_feed
from gateway.loop.privacy import erase_users
from gateway.ports import RateLimiter
from gateway.ratelimit import open_rate_limiter
from gateway.service.accounts import Accounts
from gateway.service.catalogue import Catalogue
from gateway.service.erasing import Eraser
from gateway.service.estimates import Estimates
from gateway.service.generations import Generations
from gateway.service.orders import Orders
from gateway.service.payments import Notices, Purchases
from gateway.service.pictures import Pictures
from gateway.service.privacy import Privacy
from gateway.service.uploads import Uploads
from gateway.settings import JwtSettings, Settings
from gateway.storage.erasures import PostgresErasures
from gateway.storage.library import PostgresLibrary
from gateway.web.context import Services

SCHEMA = "gateway"
_MIGRATIONS = Path(__file__).parent / "migrations"
_JWKS_TIMEOUT_S = 3.0
# Files that are decoded at once: each takes a core and 12 bytes a pixel.
_DARKROOM_THREADS = 2
# Longer than a load balancer's usual 60 s, so that it never meets a connection just closed.
_KEEP_ALIVE_S = 75

_log = get_logger(__name__)


def migrate(settings: Settings) -> None:
    """Brings the schema `gateway` up to date. Blocks."""
    from easel_kit import migrations  # noqa: PLC0415 (Alembic, for this command alone)

    migrations.upgrade(_MIGRATIONS, settings.database_url.get_secret_value(), SCHEMA)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set, then drains for at most the grace."""
    async with serving(settings, stop):
        await stop.wait()


@asynccontextmanager
async def serving(settings: Settings, stop: asyncio.Event) -> AsyncIterator[int]:
    """Serves inside the block; gives the port. `stop` must be set before it is left.

    Raises:
        DependencyDown: the database does not answer.
        OSError: the address is taken.
    """
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        stack.callback(serve_metrics(settings.metrics_listen))
        around = await _open(stack, settings, clock)
        keys = _keys(settings.jwt, around.http, clock)
        services = _services(stack, settings, around, _verifier(settings.jwt, keys), clock, stop)
        app = build_app(
            services,
            version=version("easel-gateway"),
            public_url=settings.public_url,
            cors_origins=settings.cors_origins,
            expose_metrics=settings.expose_metrics,
            max_requests=settings.max_requests,
            max_body_bytes=settings.max_body_bytes,
            max_upload_bytes=settings.max_upload_bytes,
        )
        tasks = await stack.enter_async_context(Supervisor(stop))
        stack.push_async_callback(services.generations.drain)
        tasks.start("keys", keys.keep_fresh())
        tasks.start("feed", follow_feed(around.scheduler, around.library))
        eraser = _eraser(settings, around, clock)
        tasks.start("erasures", erase_users(eraser, interval_s=settings.erasure_interval_s))
        tasks.start("tombstones", reapply(eraser))
        port = await stack.enter_async_context(_http(settings, app, tasks, stop))
        _log.info("service.ready", port=port)
        yield port


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What the gateway stands between, opened."""

    scheduler: SchedulerClient
    billing: BillingClient
    payments: PaymentsClient
    accounts: AccountPrivacyClient
    library: PostgresLibrary
    erasures: PostgresErasures
    store: ObjectStore
    limiter: RateLimiter
    http: httpx.AsyncClient


async def _open(stack: AsyncExitStack, settings: Settings, clock: Clock) -> _Around:
    pool = await stack.enter_async_context(
        open_pool(settings.database_url.get_secret_value(), schema=SCHEMA, name="gateway")
    )
    to_scheduler, to_billing = [
        await stack.enter_async_context(
            open_channel(address, default_timeout_s=settings.rpc_timeout_s)
        )
        for address in (settings.scheduler_address, settings.billing_address)
    ]
    objects = settings.objects
    if not objects.public_url:
        objects = objects.model_copy(update={"public_url": settings.public_url})
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else ""
    return _Around(
        scheduler=SchedulerClient(to_scheduler),
        billing=BillingClient(to_billing),
        payments=PaymentsClient(to_billing, timeout_s=settings.payment_timeout_s),
        accounts=AccountPrivacyClient(to_billing),
        library=PostgresLibrary(pool),
        erasures=PostgresErasures(pool),
        store=await stack.enter_async_context(open_object_store(objects, clock)),
        limiter=await stack.enter_async_context(open_rate_limiter(redis_url, clock)),
        http=await stack.enter_async_context(httpx.AsyncClient(timeout=_JWKS_TIMEOUT_S)),
    )


def _services(  # noqa: PLR0917 (the root of the composition)
    stack: AsyncExitStack,
    settings: Settings,
    around: _Around,
    verifier: JwtVerifier,
    clock: Clock,
    stop: asyncio.Event,
) -> Services:
    scheduler, billing, library, store = (
        around.scheduler,
        around.billing,
        around.library,
        around.store,
    )
    catalogue = Catalogue(scheduler, clock)
    orders = Orders(library, catalogue)
    return Services(
        generations=Generations(scheduler, billing, library, orders, stop),
        estimates=Estimates(orders, billing, billing, scheduler, scheduler),
        line=scheduler,
        catalogue=catalogue,
        accounts=Accounts(
            billing,
            clock,
            trust_plan_claim=settings.trust_plan_claim,
            default_requests_per_minute=settings.default_requests_per_minute,
        ),
        usage=billing,
        purchases=Purchases(around.payments, settings.origins()),
        notices=Notices(around.payments, at_once=settings.max_webhooks),
        pictures=Pictures(library, store),
        privacy=Privacy(
            erasures=around.erasures,
            account=around.accounts,
            jobs=scheduler,
            library=library,
            objects=store,
            clock=clock,
        ),
        uploads=Uploads(
            _darkroom(stack, settings), library, store, clock, at_once=settings.max_uploads
        ),
        verifier=verifier,
        limiter=around.limiter,
        local_objects=store if isinstance(store, FolderStore) else None,
        stop=stop,
        address_requests_per_minute=settings.address_requests_per_minute,
    )


def _darkroom(stack: AsyncExitStack, settings: Settings) -> PillowDarkroom:
    return PillowDarkroom(
        stack.enter_context(ThreadPoolExecutor(_DARKROOM_THREADS, "darkroom")),
        max_pixels=settings.max_upload_pixels,
        max_png_bytes=settings.max_upload_kept_bytes,
    )


def _eraser(settings: Settings, around: _Around, clock: Clock) -> Eraser:
    return Eraser(
        erasures=around.erasures,
        graveyard=ObjectGraveyard(around.store, SCHEMA),
        account=around.accounts,
        jobs=around.scheduler,
        line=around.scheduler,
        objects=around.store,
        clock=clock,
        upload_deadline_s=settings.upload_deadline_s,
    )


def _keys(settings: JwtSettings, client: httpx.AsyncClient, clock: SystemClock) -> JwksCache:
    return JwksCache(
        client,
        clock,
        issuer=settings.issuer,
        jwks_url=settings.jwks_url,
        algorithms=settings.algorithms,
        refresh_s=settings.refresh_s,
        min_refresh_s=settings.min_refresh_s,
    )


def _verifier(settings: JwtSettings, keys: JwksCache) -> JwtVerifier:
    return JwtVerifier(
        keys,
        issuer=settings.issuer,
        audience=settings.audience,
        client_id=settings.client_id,
        algorithms=settings.algorithms,
        leeway_s=settings.leeway_s,
    )


class _Server(uvicorn.Server):
    """Uvicorn, with signals left to `easel_kit.lifecycle`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


@asynccontextmanager
async def _http(
    settings: Settings, app: FastAPI, tasks: Supervisor, stop: asyncio.Event
) -> AsyncIterator[int]:
    """Answers on the listen address; on leaving, finishes what runs within the grace."""
    host, _, port = settings.listen.rpartition(":")
    listener = socket.create_server(
        (host.strip("[]"), int(port)),
        family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        backlog=2048,
    )
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies or None,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, int(settings.grace_s)),
        )
    )
    serving = tasks.start("http", server.serve(sockets=[listener]))
    try:
        yield int(listener.getsockname()[1])
    finally:
        stop.set()
        server.should_exit = True
        await asyncio.wait([serving])
