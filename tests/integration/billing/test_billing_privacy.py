"""A hundred people who did everything are erased: nothing is left of them but what is listed.

The lists are those of docs/operations/privacy.md.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from billing.domain.accounts import AccountId
from billing.domain.purchases import Clawback, Purchase, PurchaseSource
from billing.storage.purchases import claw_back, give_back, grant_purchase
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.erasure import hash_of
from easel_kit.errors import Forbidden, InsufficientCredits, InvalidInput
from easel_kit.ids import JobId, UserId, new_job_id
from easel_kit.log import configure_logging, get_logger
from easel_kit.telemetry import span
from tests.fakes.billing_stack import BillingStack, until, work
from tests.fakes.traces import rows, tables

USERS = 100
MARK = "c4n4ry"
SCHEMA = "billing"
TRACE_MARK = "cafe1234cafe1234"
LISTS = Path(__file__).parents[3] / "docs" / "operations" / "privacy.md"

NOBODY = AccountId("")

pytestmark = pytest.mark.timeout(300)


@dataclass
class Canary:
    """A person, by strings that are nobody else's."""

    number: int
    account_id: AccountId = NOBODY

    @property
    def user(self) -> UserId:
        return UserId(f"{MARK}|person.{self.number}@nest.example")

    @property
    def customer(self) -> str:
        return f"cus_{MARK}{self.number}"

    @property
    def traceparent(self) -> str:
        return f"00-{TRACE_MARK}{self.number:016x}-{self.number + 1:016x}-01"


def listed(name: str) -> set[str]:
    """Tables of one of the page's lists."""
    text = LISTS.read_text()
    part = text.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    return set(re.findall(r"(?m)^\| `(\w+)`", part) or re.findall(r"`(\w+)`", part))


# --- lives


async def live(stack: BillingStack, canary: Canary) -> None:
    """Everything that a person can do and that can happen to them."""
    await stack.account(canary.user)
    canary.account_id = await stack.account_id(canary.user)
    await stack.change_plan("pro", canary.user)
    await hold_and_end(stack, canary)
    await buy(stack, canary)
    await follow_stripe(stack, canary)
    await fail_at_things(stack, canary)
    assert (await stack.export(canary.user))["user_id"] == canary.user


async def hold_and_end(stack: BillingStack, canary: Canary) -> None:
    jobs = []
    for _ in range(3):
        request = pb.PlaceHoldRequest(user_id=canary.user, job_id=new_job_id(), work=work())
        with span("caller", traceparent=canary.traceparent):
            jobs.append((await stack.rpc.PlaceHold(request)).hold.job_id)
    await stack.capture(jobs[0])
    await stack.release(jobs[1])  # the third stays open
    await stack.lines(canary.user)
    # a feed that speaks of the job for someone else leaves a finding
    event = await stack.scheduler.happen(JobId(jobs[1]), UserId(f"{MARK}-other"), None)
    await stack.until_applied(event.cursor.sequence)
    await stack.sql(
        "INSERT INTO reconciliation_findings (kind, reference, detail, found_at) "
        "VALUES ('hold_of_other_user', $1, $2, now())",
        jobs[1],
        json.dumps({"user": canary.user}),
    )


async def buy(stack: BillingStack, canary: Canary) -> None:
    now = stack.clock.now()
    payment = f"pi_{canary.number}"
    purchase = Purchase(
        PurchaseSource.CHECKOUT,
        f"cs_{canary.number}",
        payment,
        100_000,
        now + timedelta(days=365),
        "Pack",
    )
    clawback = Clawback(f"re_{canary.number}", payment, 40_000, "Refund")
    async with stack.transaction() as lent:
        assert await grant_purchase(lent, canary.account_id, purchase, now)
        assert await claw_back(lent, canary.account_id, clawback, now)
        assert await give_back(lent, canary.account_id, clawback.reference, now)


async def follow_stripe(stack: BillingStack, canary: Canary) -> None:
    account_id, customer = canary.account_id, canary.customer
    for statement in (
        "INSERT INTO customers (id, account_id, created_at) VALUES ($2, $1, now())",
        (
            "INSERT INTO subscriptions VALUES ('sub_' || $2, $2, $1, 'active', true, 'pro', 1, "
            "now(), now() + interval '1 month', false, now())"
        ),
    ):
        await stack.sql(statement, account_id, customer)
    for statement in (
        "INSERT INTO customer_leases (customer_id) VALUES ($1)",
        (
            "INSERT INTO webhook_inbox (event_id, type, customer_id, created_at, received_at, "
            "state, next_try_at) "
            "VALUES ('evt_' || $1, 'invoice.paid', $1, now(), now(), 'pending', now())"
        ),
        (
            "INSERT INTO reconciliation_findings (kind, reference, detail, found_at) "
            "VALUES ('customer_differs', $1, '{}', now())"
        ),
    ):
        await stack.sql(statement, customer)


async def fail_at_things(stack: BillingStack, canary: Canary) -> None:
    with pytest.raises(InsufficientCredits):
        await stack.place(canary.user, of=work(steps=10_000, width_px=1024, height_px=1024))
    with pytest.raises(InvalidInput):
        await stack.rpc.GetAccount(pb.GetAccountRequest(user_id=f"{canary.user} \n"))


async def erase(stack: BillingStack, canaries: Sequence[Canary]) -> None:
    for canary in canaries:
        await stack.erase(canary.user)
    await until(lambda: all_erased(stack), within_s=120)
    for canary in canaries:
        await stay_erased(stack, canary)


async def all_erased(stack: BillingStack) -> bool:
    stack.clock.move(seconds=5)
    await asyncio.sleep(0.05)
    return bool(await stack.sql("SELECT count(*) = 0 FROM erasures WHERE state <> 'done'"))


async def stay_erased(stack: BillingStack, canary: Canary) -> None:
    with pytest.raises(Forbidden, match="erased"):
        await stack.account(canary.user)
    with pytest.raises(Forbidden, match="erased"):
        await stack.place(canary.user)


# --- the search


async def search(stack: BillingStack, canaries: Sequence[Canary]) -> list[str]:
    """Every trace in the schema that should not be there: a whole row as text, bytes as hex."""
    kept, found = listed("kept"), []
    accounts = {canary.account_id for canary in canaries}
    hashes = {hash_of(canary.user).hex() for canary in canaries}
    for table, text in await rows(stack.rows, SCHEMA):
        marks = (MARK, MARK.encode().hex(), TRACE_MARK)
        found += [f"{table}: {mark}" for mark in marks if mark in text]
        if table not in kept and any(f"acc_{one}" in accounts for one in _ids(text)):
            found.append(f"{table}: an account")
        if table not in {"erased_users", "erasures"} and any(one in text for one in hashes):
            found.append(f"{table}: a hash")
    return found


def _ids(text: str) -> list[str]:
    return re.findall(r"acc_([0-9a-f]{32})", text)


async def test_every_table_is_in_one_of_the_lists(stack: BillingStack) -> None:
    names = [listed(name) for name in ("kept", "removed", "impersonal")]
    assert sorted(await tables(stack.rows, SCHEMA)) == sorted([*names[0], *names[1], *names[2]])


@asynccontextmanager
async def logging_stack(stack: BillingStack, objects: Path) -> AsyncIterator[BillingStack]:
    configure_logging("billing", "debug")
    stack.objects = objects
    async with stack.running() as running:
        yield running


async def test_no_trace_of_100_canaries_is_left(
    idle_stack: BillingStack, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async with logging_stack(idle_stack, tmp_path / "objects") as busy:
        await live_and_be_erased(busy)
        await until(lambda: anchored(busy))
    for file in (tmp_path / "objects").rglob("*.json"):
        assert MARK not in str(file) + file.read_text()
    logs = capsys.readouterr().out
    assert "rpc.finished" in logs
    assert "erasure.advanced" in logs
    assert [line for line in logs.splitlines() if MARK in line] == []


async def live_and_be_erased(busy: BillingStack) -> None:
    canaries = [Canary(number) for number in range(USERS)]
    for canary in canaries:
        await live(busy, canary)
    before = await search(busy, canaries)
    named = ("account_pii", "customers", "subscriptions", "webhook_inbox", "customer_leases")
    assert {*named, "holds", "reconciliation_findings"} <= {one.split(":")[0] for one in before}

    await erase(busy, canaries)
    assert await search(busy, canaries) == []
    for table in listed("removed"):
        assert await busy.sql(f"SELECT count(*) FROM {table}") == 0
    assert sorted(busy.customers.deleted) == sorted(canary.customer for canary in canaries)
    assert await busy.breaches() == []
    assert await busy.sql("SELECT count(*) FROM transfers") > 8 * USERS


async def anchored(stack: BillingStack) -> bool:
    return bool(await stack.sql("SELECT count(*) FROM audit_anchors"))


async def test_a_planted_leak_is_found(
    idle_stack: BillingStack, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async with logging_stack(idle_stack, tmp_path) as stack:
        await plant_and_find(stack)
    assert MARK not in capsys.readouterr().out
    get_logger("test").info("leak", user=Canary(7).user)
    assert MARK in capsys.readouterr().out


async def plant_and_find(busy: BillingStack) -> None:
    canary = Canary(7)
    await live(busy, canary)
    await erase(busy, [canary])
    assert await search(busy, [canary]) == []
    user = canary.user.encode()
    leaks: list[tuple[str, tuple[object, ...], str]] = [
        (
            (
                "INSERT INTO reconciliation_findings (kind, reference, detail, found_at) "
                "VALUES ('x', 'y', $1, now())"
            ),
            (json.dumps({"deep": [{"user": canary.user}]}),),
            f"reconciliation_findings: {MARK}",
        ),
        (
            "INSERT INTO erased_users VALUES ($1, now())",
            (user[:32].ljust(32, b"."),),
            f"erased_users: {MARK.encode().hex()}",
        ),
        (
            "INSERT INTO customer_leases (customer_id) VALUES ($1)",
            (canary.account_id,),
            "customer_leases: an account",
        ),
        (
            "INSERT INTO customer_leases (customer_id) VALUES ($1)",
            (hash_of(canary.user).hex(),),
            "customer_leases: a hash",
        ),
    ]
    for statement, values, leak in leaks:
        await busy.sql(statement, *values)
        assert leak in await search(busy, [canary])
