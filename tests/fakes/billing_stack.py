"""A running billing as tests see it: its gRPC face, its database, the scheduler it follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import SecretStr

from billing.domain.accounts import AccountId
from billing.domain.holds import JobReport
from billing.main import Replacements, run
from billing.ports.inbox import Keeper
from billing.settings import ReconciliationSettings, Settings, StripeSettings
from billing.storage.check import Breach, LedgerCheck
from easel.billing.v1 import billing_pb2 as pb
from easel.billing.v1 import billing_pb2_grpc, payments_pb2_grpc, privacy_pb2, privacy_pb2_grpc
from easel_kit.db import Connection, open_pool, transaction
from easel_kit.ids import JobId, ModelKey, UserId, new_job_id
from easel_kit.objects import ObjectSettings
from easel_kit.rpc.channel import open_channel
from tests.fakes.billing import MemoryCustomers, MemoryScheduler, MovableClock, serve_scheduler

ALICE = UserId("alice")
BOB = UserId("bob")
SHAPES = ModelKey("shapes-64")

# Of the plans that come with the package.
FREE_GRANT = 50_000
PRO_GRANT = 1_000_000
PRICE = 410
"""Of `work()`."""

_NEVER_S = 1e9


def work(
    *,
    model_key: str = SHAPES,
    width_px: int = 64,
    height_px: int = 64,
    steps: int = 10,
    image_count: int = 1,
    pixel_steps: int = 0,
) -> pb.Work:
    """One picture of 64 x 64 in 10 steps, with changes."""
    return pb.Work(
        model_key=model_key,
        width_px=width_px,
        height_px=height_px,
        steps=steps,
        image_count=image_count,
        pixel_steps=pixel_steps,
    )


class BillingStack:
    """Real billing on a real database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = MovableClock()
        self.scheduler = MemoryScheduler()
        self.customers = MemoryCustomers()
        self.objects: Path | None = None
        """A folder for anchors and tombstones."""
        self.port = 0
        self.settings = Settings(database_url=SecretStr(url))
        self._stub: billing_pb2_grpc.BillingServiceStub | None = None
        self._privacy: privacy_pb2_grpc.PrivacyServiceStub | None = None
        self._money: payments_pb2_grpc.PaymentServiceStub | None = None
        self._database: asyncpg.Connection | None = None

    @property
    def rpc(self) -> billing_pb2_grpc.BillingServiceStub:
        """Billing's face; raises our errors."""
        assert self._stub is not None
        return self._stub

    @property
    def privacy(self) -> privacy_pb2_grpc.PrivacyServiceStub:
        """What the law gives a person; raises our errors."""
        assert self._privacy is not None
        return self._privacy

    @property
    def money(self) -> payments_pb2_grpc.PaymentServiceStub:
        """Its face for money; raises our errors."""
        assert self._money is not None
        return self._money

    @asynccontextmanager
    async def running(
        self,
        *,
        over_grpc: bool = False,
        scheduler_address: str = "",
        plans_file: Path | None = None,
        hold_ttl_s: float = 900,
        stripe: StripeSettings | None = None,
        inbox: Keeper | None = None,
    ) -> AsyncIterator[BillingStack]:
        """Runs billing; leaving the block ends it as a kill would: its tasks are cancelled.

        Beside the scheduler in memory, called directly or `over_grpc`, or beside one at an address.
        """
        async with AsyncExitStack() as stack:
            address = scheduler_address or "127.0.0.1:1"
            if over_grpc:
                address = await stack.enter_async_context(serve_scheduler(self.scheduler))
            settings = self.settings = Settings(
                database_url=SecretStr(self.url),
                scheduler_address=address,
                plans_file=plans_file,
                hold_ttl_s=hold_ttl_s,
                sweep_interval_s=0.05,
                renewal_interval_s=0.05,
                erasure_interval_s=0.05,
                audit_anchor_interval_s=0.05,
                objects=None if self.objects is None else ObjectSettings(url=self.objects.as_uri()),
                entitlements_interval_s=0.05,
                grace_s=1,
                stripe=stripe or StripeSettings(),
                # not by itself: its first run is counted from the machine's own time
                reconciliation=ReconciliationSettings(hourly_s=_NEVER_S, nightly_s=_NEVER_S),
            )
            self.port = 0
            ready = asyncio.Event()

            def on_ready(port: int) -> None:
                self.port = port
                ready.set()

            scheduler = None if over_grpc or scheduler_address else self.scheduler
            task = asyncio.create_task(
                run(
                    settings,
                    asyncio.Event(),
                    clock=self.clock,
                    replacements=Replacements(
                        events=scheduler,
                        resolver=scheduler,
                        queue=scheduler,
                        removal=None if stripe else self.customers,
                        inbox=inbox,
                    ),
                    on_ready=on_ready,
                )
            )
            stack.push_async_callback(_end, task)
            waiter = asyncio.create_task(ready.wait())
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            if task.done():
                task.result()
            channel = await stack.enter_async_context(
                # calls to Stripe, on a busy machine
                open_channel(f"127.0.0.1:{self.port}", default_timeout_s=30.0)
            )
            self._stub = billing_pb2_grpc.BillingServiceStub(channel)
            self._privacy = privacy_pb2_grpc.PrivacyServiceStub(channel)
            self._money = payments_pb2_grpc.PaymentServiceStub(channel)
            self._database = await asyncpg.connect(
                self.url, server_settings={"search_path": "billing"}
            )
            stack.push_async_callback(self._database.close)
            yield self

    # --- what tests do

    async def place(
        self, user: str = ALICE, job_id: str = "", of: pb.Work | None = None
    ) -> pb.PlaceHoldResponse:
        """Places a hold for a new job, or the one named, for `work()` or other work."""
        return await self.rpc.PlaceHold(
            pb.PlaceHoldRequest(user_id=user, job_id=job_id or new_job_id(), work=of or work())
        )

    async def capture(self, job_id: str, done: int = 0, total: int = 0) -> pb.Hold:
        """Captures a hold, by default the whole."""
        answer = await self.rpc.CaptureHold(
            pb.CaptureHoldRequest(job_id=job_id, steps_done=done, steps_total=total)
        )
        return answer.hold

    async def release(self, job_id: str, reason: str = "refused") -> pb.Hold:
        """Releases a hold."""
        answer = await self.rpc.ReleaseHold(pb.ReleaseHoldRequest(job_id=job_id, reason=reason))
        return answer.hold

    async def account(self, user: str = ALICE) -> pb.Account:
        """The account, opened at first sight."""
        return (await self.rpc.GetAccount(pb.GetAccountRequest(user_id=user))).account

    async def balance(self, user: str = ALICE) -> tuple[int, int]:
        """Available and held millicredits."""
        balance = (await self.account(user)).balance
        return balance.available_millicredits, balance.held_millicredits

    async def change_plan(self, plan: str, user: str = ALICE) -> pb.Account:
        """Moves a user to a plan."""
        answer = await self.rpc.ChangePlan(pb.ChangePlanRequest(user_id=user, plan_key=plan))
        return answer.account

    async def lines(
        self, user: str = ALICE, *, job_id: str = "", page_size: int = 100, page_token: str = ""
    ) -> list[pb.LedgerLine]:
        """The newest lines of the user's ledger."""
        request = pb.ListLedgerRequest(
            user_id=user, job_id=job_id, page_size=page_size, page_token=page_token
        )
        return list((await self.rpc.ListLedger(request)).lines)

    async def hold(self, job_id: str, user: str = ALICE) -> pb.Hold:
        """The user's hold of a job."""
        answer = await self.rpc.GetHolds(pb.GetHoldsRequest(user_id=user, job_ids=[job_id]))
        return answer.holds[0]

    async def happen(self, job_id: str, report: JobReport | None, user: str = ALICE) -> None:
        """Lets an event come and waits until it is applied."""
        event = await self.scheduler.happen(JobId(job_id), UserId(user), report)
        await self.until_applied(event.cursor.sequence)

    async def until_applied(self, sequence: int) -> None:
        """Returns once the feed is applied up to there."""

        async def applied() -> bool:
            return bool(await self.sql("SELECT sequence FROM feed_cursor") >= sequence)

        await until(applied)

    async def until_state(
        self, job_id: str, state: pb.HoldState.ValueType, user: str = ALICE
    ) -> None:
        """Returns once the hold is in that state."""

        async def reached() -> bool:
            return (await self.hold(job_id, user)).state == state

        await until(reached)

    async def export(self, user: str = ALICE) -> dict[str, Any]:
        """The user's export, read whole."""
        parts = self.privacy.ExportAccount(privacy_pb2.ExportAccountRequest(user_id=user))
        document: dict[str, Any] = json.loads(b"".join([part.data async for part in parts]))
        return document

    async def erase(self, user: str = ALICE) -> privacy_pb2.Erasure:
        """Asks for the user's erasure."""
        request = privacy_pb2.EraseAccountRequest(user_id=user)
        return (await self.privacy.EraseAccount(request)).erasure

    async def erasure(self, user: str = ALICE) -> privacy_pb2.Erasure:
        """How far it is."""
        request = privacy_pb2.GetErasureRequest(user_id=user)
        return (await self.privacy.GetErasure(request)).erasure

    async def until_erased(self, user: str = ALICE) -> None:
        """Returns once it is done; moves the clock on where something was waited for."""

        async def done() -> bool:
            self.clock.move(seconds=5)
            return (await self.erasure(user)).state == privacy_pb2.ERASURE_STATE_DONE

        await until(done)

    async def rows(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """All rows that a statement answers with."""
        assert self._database is not None
        return list(await self._database.fetch(statement, *values))

    async def sql(self, statement: str, *values: object) -> Any:  # noqa: ANN401 (what SQL answers)
        """The first value that a statement answers with."""
        assert self._database is not None
        return await self._database.fetchval(statement, *values)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction on billing's schema, for what has no gRPC face."""
        async with (
            open_pool(self.url, schema="billing", name="test", max_size=1) as pool,
            transaction(pool) as lent,
        ):
            yield lent

    async def account_id(self, user: str = ALICE) -> AccountId:
        """The pseudonymous id of a user's account."""
        await self.account(user)
        found = await self.sql("SELECT account_id FROM account_pii WHERE user_id = $1", user)
        return AccountId(found)

    async def debt(self, user: str = ALICE) -> int:
        """Millicredits owed."""
        return (await self.account(user)).balance.debt_millicredits

    async def findings(self) -> list[tuple[str, str]]:
        """Kind and reference of each finding, oldest first."""
        assert self._database is not None
        rows = await self._database.fetch(
            "SELECT kind, reference FROM reconciliation_findings ORDER BY id"
        )
        return [(row["kind"], row["reference"]) for row in rows]

    async def breaches(self) -> list[Breach]:
        """What `ledger-check` finds."""
        async with open_pool(self.url, schema="billing", name="test", max_size=1) as pool:
            return list(await LedgerCheck(pool).run())


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = 10) -> None:
    """Returns once an asked condition holds."""
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 (asked of a database)
            await asyncio.sleep(0.005)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
