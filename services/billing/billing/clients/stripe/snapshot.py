"""A customer's whole state, read page by page and put into domain types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import stripe
from stripe.checkout import Session

from billing.clients.stripe.calls import StripeCalls
from billing.clients.stripe.prices import StripePrices, metadata_of, pack_ref, plan_ref
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
from easel_kit.errors import NotFound
from easel_kit.log import get_logger

# https://docs.stripe.com/api/disputes/object#dispute_object-status; an inquiry takes no money, and
# for one that was prevented the refund speaks
_DISPUTES = {
    "won": DisputeStatus.WON,
    "warning_needs_response": DisputeStatus.WARNING,
    "warning_under_review": DisputeStatus.WARNING,
    "warning_closed": DisputeStatus.WARNING,
    "prevented": DisputeStatus.WARNING,
}
_FAILED_REFUNDS = {"failed", "canceled"}

_log = get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Money:
    """What the charges of a customer say: refunds, disputes, and when each payment was made."""

    refunds: tuple[Refund, ...]
    disputes: tuple[Dispute, ...]
    paid_at: dict[str, datetime]


class SnapshotReader:
    """Reads snapshots."""

    def __init__(self, calls: StripeCalls, prices: StripePrices) -> None:
        """`prices` knows which plan a price stands for."""
        self._calls = calls
        self._v1 = calls.v1
        self._prices = prices

    async def read(self, customer_id: CustomerId) -> CustomerSnapshot:
        """Everything of the customer as it is now; of a deleted one what Stripe still tells.

        Raises:
            NotFound: Stripe never knew the customer.
        """
        customer = await self._calls.call(
            self._v1.customers.retrieve_async(customer_id), kind="customer", key=customer_id
        )
        is_deleted = bool(getattr(customer, "deleted", False))
        try:
            async with asyncio.TaskGroup() as group:
                subscriptions = group.create_task(_all(self._subscriptions(customer_id)))
                lines = group.create_task(_all(self._lines(customer_id)))
                money = group.create_task(self._money(customer_id))
                sessions = group.create_task(_all(self._sessions(customer_id)))
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            if is_deleted and isinstance(first, NotFound):
                return CustomerSnapshot(customer_id, is_deleted, (), (), (), (), ())
            raise first from None
        paid_at = money.result().paid_at
        packs = [_pack(session, paid_at) for session in sessions.result()]
        return CustomerSnapshot(
            customer_id=customer_id,
            is_deleted=is_deleted,
            subscriptions=_oldest_first(subscriptions.result(), lambda one: one.created_at),
            lines=_oldest_first(lines.result(), lambda line: line.paid_at),
            packs=_oldest_first([pack for pack in packs if pack], lambda pack: pack.paid_at),
            refunds=money.result().refunds,
            disputes=money.result().disputes,
        )

    async def _subscriptions(self, customer_id: CustomerId) -> AsyncIterator[SubscriptionSnapshot]:
        method = self._v1.subscriptions.list_async
        async for one in self._calls.pages(method, customer=customer_id, status="all"):
            found = _subscription(one)
            if found is None:
                _log.warning("stripe.subscription_unknown", subscription=one.id)
            else:
                yield found

    async def _lines(self, customer_id: CustomerId) -> AsyncIterator[PaidLine]:
        method = self._v1.invoices.list_async
        async for invoice in self._calls.pages(
            method, customer=customer_id, status="paid", expand=["data.payments"]
        ):
            for line in await self._lines_of(invoice):
                found = await self._line(line, invoice)
                if found is not None:
                    yield found

    async def _lines_of(self, invoice: stripe.Invoice) -> Sequence[stripe.InvoiceLineItem]:
        if not invoice.lines.has_more:
            return invoice.lines.data

        async def method(
            params: stripe.params.InvoiceLineItemListParams,
        ) -> stripe.ListObject[stripe.InvoiceLineItem]:
            return await self._v1.invoices.line_items.list_async(invoice.id, params)

        return await _all(self._calls.pages(method))

    async def _line(self, line: stripe.InvoiceLineItem, invoice: stripe.Invoice) -> PaidLine | None:
        details = line.pricing.price_details if line.pricing else None
        if details is None:
            return None
        plan = await self._prices.plan_of(_id(details.price))
        if plan is None:
            return None
        return PaidLine(
            id=line.id,
            invoice_id=invoice.id,
            payment=_payment(invoice),
            plan_key=plan.key,
            plan_version=plan.version,
            amount_cents=line.amount,
            is_proration=_is_proration(line),
            period_start=_time(line.period.start),
            period_end=_time(line.period.end),
            paid_at=_time(invoice.status_transitions.paid_at or invoice.created),
        )

    async def _sessions(self, customer_id: CustomerId) -> AsyncIterator[Session]:
        method = self._v1.checkout.sessions.list_async
        async for session in self._calls.pages(method, customer=customer_id, status="complete"):
            if session.mode == "payment" and session.payment_status == "paid":
                yield session

    async def _money(self, customer_id: CustomerId) -> _Money:
        refunds: list[Refund] = []
        disputes: list[Dispute] = []
        paid_at: dict[str, datetime] = {}
        async for charge in self._calls.pages(
            self._v1.charges.list_async, customer=customer_id, expand=["data.refunds"]
        ):
            payment = _id(charge.payment_intent)
            if not charge.paid or not payment:
                continue
            paid_at[payment] = _time(charge.created)
            paid_cents = charge.amount_captured
            found = await self._refunds_of(charge)
            refunds += [_refund(refund, payment, paid_cents) for refund in found]
            if charge.disputed:
                contested = self._calls.pages(self._v1.disputes.list_async, charge=charge.id)
                disputes += [_dispute(dispute, payment, paid_cents) async for dispute in contested]
        return _Money(
            _oldest_first(refunds, lambda refund: refund.created_at),
            _oldest_first(disputes, lambda dispute: dispute.created_at),
            paid_at,
        )

    async def _refunds_of(self, charge: stripe.Charge) -> Sequence[stripe.Refund]:
        if charge.refunds is not None and not charge.refunds.has_more:
            return charge.refunds.data
        return await _all(self._calls.pages(self._v1.refunds.list_async, charge=charge.id))


def _subscription(one: stripe.Subscription) -> SubscriptionSnapshot | None:
    # `items` by name would be fine too, were it not for the habit of dictionaries
    for item in one["items"].data:
        plan = plan_ref(item.price)
        if plan is not None:
            return SubscriptionSnapshot(
                id=one.id,
                status=SubscriptionStatus(one.status),
                plan_key=plan.key,
                plan_version=plan.version,
                period_start=_time(item.current_period_start),
                period_end=_time(item.current_period_end),
                cancel_at_period_end=one.cancel_at_period_end or one.cancel_at is not None,
                created_at=_time(one.created),
            )
    return None


def _is_proration(line: stripe.InvoiceLineItem) -> bool:
    if line.parent is None:
        return False
    details = line.parent.subscription_item_details or line.parent.invoice_item_details
    return details is not None and bool(details.proration)


def _payment(invoice: stripe.Invoice) -> str:
    """What paid it; empty for an invoice that a balance or nothing paid."""
    payments: Iterable[stripe.InvoicePayment] = invoice.payments.data if invoice.payments else ()
    for payment in payments:
        if payment.status == "paid" and payment.payment.payment_intent is not None:
            return _id(payment.payment.payment_intent)
    return ""


def _pack(session: Session, paid_at: dict[str, datetime]) -> PaidPack | None:
    pack = pack_ref(metadata_of(session.metadata))
    if pack is None:
        return None
    payment = _id(session.payment_intent)
    return PaidPack(
        session_id=session.id,
        payment=payment,
        pack_key=pack.key,
        pack_version=pack.version,
        amount_cents=session.amount_total or 0,
        paid_at=paid_at.get(payment, _time(session.created)),
    )


def _refund(refund: stripe.Refund, payment: str, paid_cents: int) -> Refund:
    return Refund(
        id=refund.id,
        payment=payment,
        amount_cents=refund.amount,
        paid_cents=paid_cents,
        created_at=_time(refund.created),
        has_failed=refund.status in _FAILED_REFUNDS,
    )


def _dispute(dispute: stripe.Dispute, payment: str, paid_cents: int) -> Dispute:
    return Dispute(
        id=dispute.id,
        payment=payment,
        status=_DISPUTES.get(dispute.status, DisputeStatus.WITHDRAWN),
        amount_cents=dispute.amount,
        paid_cents=paid_cents,
        created_at=_time(dispute.created),
    )


def _id(reference: object) -> str:
    """The id of an expandable field, expanded or not; empty for none."""
    if reference is None:
        return ""
    return reference if isinstance(reference, str) else str(getattr(reference, "id", ""))


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _oldest_first(found: Sequence[T], at: Callable[[T], datetime]) -> tuple[T, ...]:
    """Lists come newest first, which orders what is of the same second."""
    found = found[::-1]
    return tuple(sorted(found, key=at))


async def _all(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]
