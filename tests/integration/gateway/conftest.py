"""The gateway's real wiring on loopback, between an issuer and in-memory billing and scheduler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from easel.billing.v1 import privacy_pb2_grpc as bill_grpc
from easel.billing.v1.billing_pb2_grpc import add_BillingServiceServicer_to_server
from easel.billing.v1.payments_pb2_grpc import add_PaymentServiceServicer_to_server
from easel.scheduler.v1 import privacy_pb2_grpc as sched_grpc
from easel.scheduler.v1.events_pb2_grpc import add_EventServiceServicer_to_server
from easel.scheduler.v1.jobs_pb2_grpc import add_JobServiceServicer_to_server
from easel_kit import migrations
from easel_kit.rpc.server import build_server
from gateway import main
from gateway.settings import Settings
from tests.fakes.gateway import Gateway, Start, until_ready
from tests.fakes.gateway_billing import FakeBilling
from tests.fakes.gateway_issuer import AUDIENCE, Issuer
from tests.fakes.gateway_payments import FakePayments
from tests.fakes.gateway_privacy import FakeAccountPrivacy, FakeJobPrivacy
from tests.fakes.gateway_scheduler import FakeScheduler

MIGRATIONS = Path(main.__file__).parent / "migrations"


@pytest.fixture
def database_url(migrated_database: Callable[[str, Callable[[str], None]], str]) -> str:
    """A database with the gateway's schema."""
    return migrated_database(
        "gateway", lambda url: migrations.upgrade(MIGRATIONS, url, main.SCHEMA)
    )


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """A token issuer."""
    async with Issuer().serving() as serving:
        yield serving


@pytest.fixture
def start(database_url: str, issuer: Issuer, tmp_path: Path) -> Start:
    """Starts a gateway with changed settings; `jwt` and others as nested dictionaries."""

    @contextlib.asynccontextmanager
    async def starting(*, wait_ready: bool = True, **changed: object) -> AsyncIterator[Gateway]:
        billing, scheduler = FakeBilling(), FakeScheduler()
        payments = FakePayments(billing)
        accounts, histories = FakeAccountPrivacy(), FakeJobPrivacy(scheduler)
        objects = tmp_path / "objects"
        objects.mkdir(exist_ok=True)
        key_file = tmp_path / "signing-key"
        key_file.write_bytes(b"k" * 32)
        async with contextlib.AsyncExitStack() as stack:
            server = build_server()
            add_BillingServiceServicer_to_server(billing, server.grpc)
            add_PaymentServiceServicer_to_server(payments, server.grpc)
            bill_grpc.add_PrivacyServiceServicer_to_server(accounts, server.grpc)
            sched_grpc.add_PrivacyServiceServicer_to_server(histories, server.grpc)
            add_JobServiceServicer_to_server(scheduler, server.grpc)
            add_EventServiceServicer_to_server(scheduler, server.grpc)
            rpc = await stack.enter_async_context(server.serving("127.0.0.1:0", [], grace_s=0.1))
            address = f"127.0.0.1:{rpc.port}"
            values: dict[str, Any] = {
                "database_url": database_url,
                "billing_address": address,
                "scheduler_address": address,
                "rpc_timeout_s": 1.0,
                "jwt": {"issuer": issuer.url, "audience": AUDIENCE, "min_refresh_s": 0},
                "objects": {"url": f"file://{objects}", "signing_key_file": key_file},
                "grace_s": 2.0,
                "erasure_interval_s": 0.05,
                "upload_deadline_s": 0.2,
            }
            for name, value in changed.items():
                if isinstance(value, dict) and isinstance(values.get(name), dict):
                    values[name] = values[name] | value
                else:
                    values[name] = value
            stop = asyncio.Event()
            stack.callback(stop.set)
            port = await stack.enter_async_context(main.serving(Settings(**values), stop))
            url = f"http://127.0.0.1:{port}"
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=10))
            if wait_ready:
                await until_ready(http)
            yield Gateway(
                url,
                stop,
                issuer,
                billing,
                payments,
                scheduler,
                accounts,
                histories,
                objects,
                http,
            )

    return starting


@pytest.fixture
async def gateway(start: Start) -> AsyncIterator[Gateway]:
    """A gateway with usual settings."""
    async with start() as running:
        yield running
