"""What a customer's snapshot means for the plan and for credits.

Pure, and a function of the snapshot alone. Each effect has a reference of Stripe's and is booked
once, so that snapshots may come in any number and any order: the last one decides the plan, and all
of them together say nothing about credits that the last one does not say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from billing.domain.accounts import months_after
from billing.domain.payments import (
    CustomerSnapshot,
    Dispute,
    DisputeStatus,
    PaidLine,
    PaidPack,
    Refund,
    SubscriptionSnapshot,
)
from billing.domain.plans import PackVersion, PlanTerms, PlanVersion
from billing.domain.purchases import Clawback, Purchase, PurchaseSource

VersionRef: TypeAlias = tuple[str, int]
"""Key and version of a plan or a pack."""

_CENTS = 100


@dataclass(frozen=True, slots=True)
class Published:
    """The plan and pack versions that a snapshot speaks of; what is not in here is not ours."""

    plans: Mapping[VersionRef, PlanVersion]
    packs: Mapping[VersionRef, PackVersion]


@dataclass(frozen=True, slots=True)
class GiveBack:
    """A clawback that is undone."""

    reference: str


Effect: TypeAlias = Purchase | Clawback | GiveBack


@dataclass(frozen=True, slots=True)
class _Bought:
    at: datetime
    purchase: Purchase
    currency: str


def deciding(subscriptions: Sequence[SubscriptionSnapshot]) -> SubscriptionSnapshot | None:
    """The subscription that decides the plan: the newest live one; None: none is live."""
    live = [one for one in subscriptions if one.status.is_live]
    return max(live, key=lambda one: (one.created_at, one.id), default=None)


def effects(
    snapshot: CustomerSnapshot, published: Published, grace: timedelta
) -> tuple[Effect, ...]:
    """All that the snapshot says about credits, in the order in which it happened.

    Args:
        snapshot: the customer's whole state.
        published: the terms of what was bought.
        grace: how long the credits of a paid month outlive it.
    """
    bought = [
        *_bought_by_lines(snapshot.lines, published, grace),
        *_bought_by_packs(snapshot.packs, published),
    ]
    timed: list[tuple[datetime, Effect]] = [(one.at, one.purchase) for one in bought]
    timed += _given_back_time(snapshot.lines, published)
    timed += _money_taken_back(snapshot.refunds, snapshot.disputes, bought)
    undone = [GiveBack(one.id) for one in snapshot.disputes if one.status is DisputeStatus.WON]
    undone += [GiveBack(one.id) for one in snapshot.refunds if one.has_failed]
    timed.sort(key=lambda effect: effect[0])
    return (*(effect for _, effect in timed), *undone)


def _bought_by_lines(
    lines: Sequence[PaidLine], published: Published, grace: timedelta
) -> list[_Bought]:
    bought = []
    for line in lines:
        plan = published.plans.get((line.plan_key, line.plan_version))
        millicredits = 0 if plan is None else _credits_of(line, lines, plan.terms)
        if plan is None or line.amount_cents <= 0 or millicredits == 0:
            continue
        until = line.period_end.date().isoformat()
        part = "the rest of the month, " if line.is_proration else ""
        purchase = Purchase(
            source=PurchaseSource.INVOICE_LINE,
            reference=line.id,
            payment=line.payment,
            millicredits=millicredits,
            expires_at=line.period_end + grace,
            description=f"Credits of the plan {plan.terms.name}, paid for {part}until {until}",
        )
        bought.append(_Bought(line.paid_at, purchase, plan.terms.currency))
    return bought


def _bought_by_packs(packs: Sequence[PaidPack], published: Published) -> list[_Bought]:
    bought = []
    for pack in packs:
        version = published.packs.get((pack.pack_key, pack.pack_version))
        if version is None:
            continue
        expires_at = pack.paid_at + timedelta(days=version.terms.valid_days)
        purchase = Purchase(
            source=PurchaseSource.CHECKOUT,
            reference=pack.session_id,
            payment=pack.payment,
            millicredits=version.terms.millicredits,
            expires_at=expires_at,
            description=f"Bought: {version.terms.name}, until {expires_at.date().isoformat()}",
        )
        bought.append(_Bought(pack.paid_at, purchase, version.terms.currency))
    return bought


def _given_back_time(
    lines: Sequence[PaidLine], published: Published
) -> list[tuple[datetime, Effect]]:
    """The credits of time that an upgrade gave back, as far as they are free."""
    found: list[tuple[datetime, Effect]] = []
    for line in lines:
        plan = published.plans.get((line.plan_key, line.plan_version))
        original = _original(line, lines)
        if plan is None or original is None or not original.payment:
            continue
        millicredits = _credits_of(line, lines, plan.terms)
        if line.amount_cents >= 0 or millicredits == 0:
            continue
        clawback = Clawback(
            reference=line.id,
            payment=original.payment,
            millicredits=millicredits,
            description=f"Unused time on the plan {plan.terms.name}, given back",
            may_owe=False,
        )
        found.append((line.paid_at, clawback))
    return found


def _money_taken_back(
    refunds: Sequence[Refund], disputes: Sequence[Dispute], bought: Sequence[_Bought]
) -> list[tuple[datetime, Effect]]:
    """Of each payment the part of its credits that corresponds to the money that went back.

    What went back is added up before it is rounded down, so that parts that make the whole take
    the whole. Within a second the snapshot's order counts, and a dispute comes after refunds:
    what is disputed cannot be refunded.
    """
    granted: dict[str, int] = defaultdict(int)
    currency: dict[str, str] = {}
    for lot in bought:
        granted[lot.purchase.payment] += lot.purchase.millicredits
        currency[lot.purchase.payment] = lot.currency
    returns: list[Refund | Dispute] = [one for one in refunds if not one.has_failed]
    returns += [one for one in disputes if one.status is DisputeStatus.WITHDRAWN]
    returns.sort(key=lambda one: one.created_at)
    returned: dict[str, int] = defaultdict(int)
    found: list[tuple[datetime, Effect]] = []
    for one in returns:
        if not one.payment or granted[one.payment] == 0 or one.paid_cents <= 0:
            continue
        before = returned[one.payment]
        after = min(before + one.amount_cents, one.paid_cents)
        returned[one.payment] = after
        whole = granted[one.payment]
        millicredits = whole * after // one.paid_cents - whole * before // one.paid_cents
        if millicredits == 0:
            continue
        what = "Refund" if isinstance(one, Refund) else "Disputed payment"
        money = money_text(one.amount_cents, currency[one.payment])
        clawback = Clawback(one.id, one.payment, millicredits, f"{what} of {money}")
        found.append((one.created_at, clawback))
    return found


def _credits_of(line: PaidLine, lines: Sequence[PaidLine], terms: PlanTerms) -> int:
    """The plan's credits for the time of a line, rounded down; a whole month's for a whole month.

    A line that is part of a month is measured in seconds against the month that it ends with.
    """
    if not line.is_proration:
        return terms.monthly_millicredits
    part = _seconds(line.period_start, line.period_end)
    month = _seconds(_month_start(line, lines), line.period_end)
    if part <= 0 or month <= 0:
        return 0
    return terms.monthly_millicredits * min(part, month) // month


def _month_start(line: PaidLine, lines: Sequence[PaidLine]) -> datetime:
    """When the month began that a proration is a part of: where a whole line with its end began."""
    wholes = [one for one in lines if not one.is_proration and _holds(one, line)]
    if wholes:
        return max(one.period_start for one in wholes)
    return min(months_after(line.period_end, -1), line.period_start)


def _original(line: PaidLine, lines: Sequence[PaidLine]) -> PaidLine | None:
    """What was paid for the time that a negative line gives back; None: nothing that is known."""
    paid = [
        one
        for one in lines
        if one.amount_cents > 0
        and (one.plan_key, one.plan_version) == (line.plan_key, line.plan_version)
        and _holds(one, line)
    ]
    return max(paid, key=lambda one: (one.period_start, one.paid_at, one.id), default=None)


def _holds(whole: PaidLine, part: PaidLine) -> bool:
    return whole.period_end == part.period_end and whole.period_start <= part.period_start


def _seconds(start: datetime, end: datetime) -> int:
    return int((end - start).total_seconds())


def money_text(cents: int, currency: str) -> str:
    """For people: "19.00 USD"."""
    return f"{cents // _CENTS}.{cents % _CENTS:02} {currency.upper()}"
