"""Billing as a process that can be killed, between a scheduler and a Stripe that live on."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import asyncpg

from billing.storage.check import LedgerCheck
from easel.billing.v1 import billing_pb2_grpc, payments_pb2_grpc
from easel.billing.v1 import payments_pb2 as payments
from easel_kit.db import open_pool
from easel_kit.errors import DeadlineExceeded, DependencyDown
from easel_kit.rpc.channel import open_channel
from easel_local.ports import free_port
from tests.chaos_billing.trap import Spot
from tests.fakes.billing import MemoryScheduler, serve_scheduler
from tests.fakes.stripe_stand_in import StripeStandIn, stripe_stand_in

_ROOT = Path(__file__).resolve().parents[2]
_START_S, _ANSWER_S, _DEATH_S = 60.0, 20.0, 30.0
LEASE_S = 1.5
SHORT_TTL_S, LONG_TTL_S = 1.0, 900.0


class Billing:
    """The process, as it comes and goes."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.kills = 0
        self._process: asyncio.subprocess.Process | None = None
        self._settings: Mapping[str, object] | None = None

    async def run(self, settings: Mapping[str, object]) -> None:
        """Runs with these settings and an unset trap; starts anew where they differ."""
        if self._process is not None and self._process.returncode is None:
            if settings == self._settings:
                await self.arm(None)
                return
            await self.end()
        file = self.folder / "settings.json"
        file.write_text(json.dumps(settings))
        with (self.folder / "billing.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.chaos_billing.process",
                str(file),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=asyncio.subprocess.PIPE,
                cwd=_ROOT,
            )
        self._settings = settings
        await self._hear(f"ready {self.port}", _START_S)

    async def arm(self, spot: Spot | None) -> None:
        """Sets the trap."""
        assert self._process is not None
        assert self._process.stdin is not None
        wish = None if spot is None else asdict(spot)
        self._process.stdin.write(json.dumps(wish).encode() + b"\n")
        await self._hear("armed", _ANSWER_S)

    async def died(self) -> None:
        """Returns when the trap has killed it."""
        assert self._process is not None
        status = await asyncio.wait_for(self._process.wait(), _DEATH_S)
        assert status == -signal.SIGKILL, f"billing ended with {status}: {self.folder}"
        self.kills += 1

    async def end(self) -> None:
        """Ends it, whatever it does."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def _hear(self, word: str, within_s: float) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        said = ""
        async with asyncio.timeout(within_s):
            while word not in said:
                line = await self._process.stderr.readline()
                assert line, f"billing has ended: {said}"
                said += line.decode(errors="replace")


class House:
    """Everything around billing."""

    def __init__(
        self, url: str, billing: Billing, scheduler: MemoryScheduler, stripe: StripeStandIn
    ) -> None:
        self.url = url
        self.billing = billing
        self.scheduler = scheduler
        self.stripe = stripe
        self.scheduler_address = ""
        self.rpc: billing_pb2_grpc.BillingServiceStub
        self.money: payments_pb2_grpc.PaymentServiceStub
        self.database: asyncpg.Connection[asyncpg.Record]

    async def run(self, *, hold_ttl_s: float, with_stripe: bool) -> None:
        """Billing runs, with an unset trap."""
        settings: dict[str, object] = {
            "database_url": self.url,
            "listen": f"127.0.0.1:{self.billing.port}",
            "scheduler_address": self.scheduler_address,
            "hold_ttl_s": hold_ttl_s,
            "sweep_interval_s": 0.1,
            "entitlements_interval_s": 0.1,
            "log_level": "warning",
            "grace_s": 1,
        }
        if with_stripe:
            settings["stripe"] = {
                "secret_key": self.stripe.key,
                "api_url": self.stripe.url,
                "webhook_secret": self.stripe.secret,
                "timeout_s": LEASE_S * 0.9,
                "max_retries": 0,
            }
            settings["inbox"] = {"lease_s": LEASE_S, "poll_s": 0.1, "retry_base_s": 0.1}
        await self.billing.run(settings)

    async def forward(self, payload: bytes, signature: str) -> int:
        """What the gateway does with a webhook."""
        request = payments.IngestStripeEventRequest(payload=payload, signature=signature)
        try:
            await self.money.IngestStripeEvent(request, timeout=2.0)
        except (DependencyDown, DeadlineExceeded):
            return 503
        return 200

    async def value(self, statement: str, *values: object) -> object:
        """The first value that SQL answers with."""
        return await self.database.fetchval(statement, *values)

    async def breaches(self) -> list[str]:
        """What `ledger-check` finds."""
        async with open_pool(self.url, schema="billing", name="test", max_size=1) as pool:
            found = await LedgerCheck(pool).run()
        return [f"{breach.invariant}: {breach.reference}" for breach in found]


@asynccontextmanager
async def open_house(url: str, folder: Path) -> AsyncIterator[House]:
    """A migrated database's house; billing runs when it is told to."""
    billing, scheduler = Billing(folder, free_port()), MemoryScheduler()
    async with (
        serve_scheduler(scheduler) as scheduler_address,
        stripe_stand_in(signs_with="system", first_retry_s=0.1) as stripe,
        open_channel(f"127.0.0.1:{billing.port}") as channel,
    ):
        house = House(url, billing, scheduler, stripe)
        house.scheduler_address = scheduler_address
        house.rpc = billing_pb2_grpc.BillingServiceStub(channel)
        house.money = payments_pb2_grpc.PaymentServiceStub(channel)
        house.database = await asyncpg.connect(url, server_settings={"search_path": "billing"})
        stripe.deliver_to(house.forward)
        try:
            yield house
        finally:
            await billing.end()
            await house.database.close()
