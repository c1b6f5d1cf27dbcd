"""What a customer's snapshot means for plan and credits."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.effects import Effect, GiveBack, Published, deciding, effects, money_text
from billing.domain.payments import (
    CustomerId,
    CustomerSnapshot,
    Dispute,
    DisputeStatus,
    PaidLine,
    PaidPack,
    Refund,
    SubscriptionSnapshot,
    SubscriptionStatus,
)
from billing.domain.plans import PackVersion, PlanVersion
from billing.domain.purchases import Clawback, Purchase, PurchaseSource
from billing.storage.plans import read_plan_book

BOOK = read_plan_book(None)
PLANS = {(terms.key, 1): PlanVersion(1, terms) for terms in BOOK.plans}
PACKS = {(terms.key, 1): PackVersion(1, terms) for terms in BOOK.packs}
PUBLISHED = Published(PLANS, PACKS)
GRACE = timedelta(days=1)
PRO = PLANS["pro", 1].terms
ENTERPRISE = PLANS["enterprise", 1].terms

START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 1, 31, tzinfo=UTC)
EMPTY = CustomerSnapshot(CustomerId("cus_1"), False, (), (), (), (), ())  # noqa: FBT003


def line(key: str = "pro", **changes: Any) -> PaidLine:  # noqa: ANN401 (any field)
    whole = PaidLine(
        id=f"il_{key}",
        invoice_id="in_1",
        payment="pi_1",
        plan_key=key,
        plan_version=1,
        amount_cents=PLANS[key, 1].terms.price_cents,
        is_proration=False,
        period_start=START,
        period_end=END,
        paid_at=START,
    )
    return replace(whole, **changes)


def refund(number: int, cents: int, **changes: object) -> Refund:
    at = START + timedelta(days=number)
    made = Refund(f"re_{number}", "pi_1", cents, PRO.price_cents, at)
    return replace(made, **changes)  # type: ignore[arg-type]


def subscription(number: int = 1, **changes: object) -> SubscriptionSnapshot:
    made = SubscriptionSnapshot(
        id=f"sub_{number}",
        status=SubscriptionStatus.ACTIVE,
        plan_key="pro",
        plan_version=1,
        period_start=START,
        period_end=END,
        cancel_at_period_end=False,
        created_at=START + timedelta(seconds=number),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def meaning(**parts: object) -> tuple[Effect, ...]:
    return effects(replace(EMPTY, **parts), PUBLISHED, GRACE)  # type: ignore[arg-type]


def clawbacks(found: tuple[Effect, ...]) -> list[Clawback]:
    return [effect for effect in found if isinstance(effect, Clawback)]


# --- which subscription decides


@pytest.mark.parametrize("status", list(SubscriptionStatus))
def test_a_live_subscription_decides_and_no_other(status: SubscriptionStatus) -> None:
    found = deciding([subscription(status=status)])
    assert (found is not None) == (status in {"active", "trialing", "past_due"})


def test_of_two_live_ones_the_newer_decides_in_any_order() -> None:
    both = [subscription(1), subscription(2), subscription(3, status=SubscriptionStatus.CANCELED)]
    assert deciding(both) == deciding(both[::-1]) == subscription(2)
    assert deciding([]) is None


# --- what a line means


def test_a_paid_month_brings_the_plans_credits() -> None:
    (found,) = meaning(lines=(line(),))
    assert found == Purchase(
        PurchaseSource.INVOICE_LINE,
        "il_pro",
        "pi_1",
        PRO.monthly_millicredits,
        END + GRACE,
        "Credits of the plan Pro, paid for until 2026-01-31",
    )


@pytest.mark.parametrize("changes", [{"amount_cents": 0}, {"plan_version": 9}])
def test_nothing_paid_or_nothing_of_ours_brings_none(changes: dict[str, Any]) -> None:
    assert meaning(lines=(line(**changes),)) == ()


def upgrade(at: datetime) -> tuple[PaidLine, PaidLine, PaidLine]:
    """A month of pro, changed for enterprise on the way."""
    part: dict[str, Any] = {
        "is_proration": True,
        "period_start": at,
        "paid_at": at,
        "payment": "pi_2",
    }
    return (
        line(),
        line(id="il_back", amount_cents=-900, **part),
        line("enterprise", amount_cents=14_000, **part),
    )


def test_an_upgrade_brings_the_rest_of_the_month_and_gives_back_what_is_free() -> None:
    at = START + timedelta(days=12, seconds=7)
    share = 18 * 86_400 - 7
    month = 30 * 86_400
    found = meaning(lines=upgrade(at))
    brought = next(one for one in found if isinstance(one, Purchase) and one.payment == "pi_2")
    (taken,) = clawbacks(found)
    assert brought.millicredits == ENTERPRISE.monthly_millicredits * share // month
    assert taken.millicredits == PRO.monthly_millicredits * share // month
    # it is the month of pro that is given back, and only what nobody has spent
    assert (taken.payment, taken.may_owe, taken.reference) == ("pi_1", False, "il_back")


def test_time_given_back_that_nothing_paid_for_takes_nothing() -> None:
    _, back, _ = upgrade(START + timedelta(days=3))
    assert clawbacks(meaning(lines=(back,))) == []
    assert clawbacks(meaning(lines=(line(payment=""), back))) == []


def test_a_proration_without_its_month_is_measured_by_the_calendar() -> None:
    # the month that ends on the 31st of January begins on the 31st of December
    start = datetime(2026, 1, 15, 12, tzinfo=UTC)
    (found,) = meaning(lines=(line(is_proration=True, period_start=start),))
    assert isinstance(found, Purchase)
    half_days, half_days_of_month = 31, 62
    assert found.millicredits == PRO.monthly_millicredits * half_days // half_days_of_month


def test_a_pack_brings_its_credits_until_it_expires() -> None:
    pack = PACKS["small", 1].terms
    paid = PaidPack("cs_1", "pi_9", "small", 1, pack.price_cents, START)
    (found,) = meaning(packs=(paid,))
    assert found == Purchase(
        PurchaseSource.CHECKOUT,
        "cs_1",
        "pi_9",
        pack.millicredits,
        START + timedelta(days=pack.valid_days),
        "Bought: 100 credits, until 2027-01-01",
    )
    assert meaning(packs=(replace(paid, pack_version=9),)) == ()


# --- what takes credits back


def test_a_refund_takes_the_part_that_the_money_bought() -> None:
    (taken,) = clawbacks(meaning(lines=(line(),), refunds=(refund(1, 633),)))
    assert taken.millicredits == PRO.monthly_millicredits * 633 // PRO.price_cents
    assert (taken.reference, taken.payment, taken.may_owe) == ("re_1", "pi_1", True)
    assert taken.description == "Refund of 6.33 USD"


@given(st.lists(st.integers(1, PRO.price_cents), min_size=1, max_size=8))
def test_refunds_in_parts_take_what_they_would_take_at_once(parts: list[int]) -> None:
    refunds = tuple(refund(number, cents) for number, cents in enumerate(parts))
    taken = sum(one.millicredits for one in clawbacks(meaning(lines=(line(),), refunds=refunds)))
    money = min(sum(parts), PRO.price_cents)
    assert taken == PRO.monthly_millicredits * money // PRO.price_cents


def test_a_refund_that_failed_gives_back() -> None:
    found = meaning(lines=(line(),), refunds=(refund(1, 633, has_failed=True),))
    assert clawbacks(found) == []
    assert found[-1] == GiveBack("re_1")


def test_a_refund_of_something_else_takes_nothing() -> None:
    assert clawbacks(meaning(lines=(line(),), refunds=(refund(1, 633, payment="pi_7"),))) == []
    assert clawbacks(meaning(lines=(line(),), refunds=(refund(1, 633, payment=""),))) == []
    assert clawbacks(meaning(lines=(line(),), refunds=(refund(1, 0, paid_cents=0),))) == []


@pytest.mark.parametrize(
    ("status", "taken", "given_back"),
    [
        (DisputeStatus.WARNING, 0, 0),
        (DisputeStatus.WITHDRAWN, PRO.monthly_millicredits, 0),
        (DisputeStatus.WON, 0, 1),
    ],
)
def test_a_dispute_takes_while_the_money_is_away(
    status: DisputeStatus, taken: int, given_back: int
) -> None:
    dispute = Dispute("du_1", "pi_1", status, PRO.price_cents, PRO.price_cents, END)
    found = meaning(lines=(line(),), disputes=(dispute,))
    assert sum(one.millicredits for one in clawbacks(found)) == taken
    assert found.count(GiveBack("du_1")) == given_back


def test_a_refund_and_a_dispute_never_take_more_than_the_money_bought() -> None:
    dispute = Dispute("du_1", "pi_1", DisputeStatus.WITHDRAWN, 1_900, PRO.price_cents, END)
    found = meaning(lines=(line(),), refunds=(refund(1, 1_000),), disputes=(dispute,))
    assert sum(one.millicredits for one in clawbacks(found)) == PRO.monthly_millicredits


def test_money_for_people() -> None:
    assert money_text(1_905, "usd") == "19.05 USD"


# --- snapshots in any order


class Books:
    """What a customer comes to when effects are booked once each, and the last look decides."""

    def __init__(self) -> None:
        self.booked: dict[str, int] = {}
        self.plan: SubscriptionSnapshot | None = None

    def look(self, snapshot: CustomerSnapshot) -> None:
        for effect in effects(snapshot, PUBLISHED, GRACE):
            if isinstance(effect, GiveBack):
                self.booked[effect.reference] = 0
            else:
                sign = 1 if isinstance(effect, Purchase) else -1
                self.booked.setdefault(effect.reference, sign * effect.millicredits)
        self.plan = deciding(snapshot.subscriptions)

    @property
    def standing(self) -> dict[str, int]:
        return {reference: amount for reference, amount in self.booked.items() if amount}


def history(steps: random.Random) -> list[CustomerSnapshot]:
    """A customer's life, looked at after each thing that happened."""
    looks = [EMPTY]
    for number in range(1, 8):
        last = looks[-1]
        at = START + timedelta(days=30 * number)
        month = line(
            id=f"il_{number}",
            payment=f"pi_{number}",
            period_start=at,
            period_end=at + timedelta(days=30),
            paid_at=at,
        )
        paid = replace(last, lines=(*last.lines, month), subscriptions=(subscription(number),))
        looks.append(paid)
        if steps.random() < 0.5:
            part = refund(number, steps.randint(1, 900), payment=month.payment, created_at=at)
            looks.append(replace(looks[-1], refunds=(*looks[-1].refunds, part)))
        if steps.random() < 0.5:
            dispute = Dispute(
                f"du_{number}", month.payment, DisputeStatus.WITHDRAWN, 1_000, 1_900, at
            )
            kept = looks[-1].disputes
            looks.append(replace(looks[-1], disputes=(*kept, dispute)))
            if steps.random() < 0.5:
                won = replace(dispute, status=DisputeStatus.WON)
                looks.append(replace(looks[-1], disputes=(*kept, won)))
    return looks


@given(st.integers(0, 10_000), st.data())
def test_any_looks_in_any_order_end_like_the_last_one(seed: int, data: st.DataObject) -> None:
    looks = history(random.Random(seed))
    some = data.draw(st.lists(st.sampled_from(looks), max_size=12))
    books, last = Books(), Books()
    last.look(looks[-1])
    for look in (*some, looks[-1]):
        books.look(look)
    assert books.plan == last.plan
    assert books.standing == last.standing
