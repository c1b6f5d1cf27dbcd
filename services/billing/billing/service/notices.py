"""Webhooks on their way into the inbox."""

from __future__ import annotations

from dataclasses import replace

from billing.domain.inbox import is_telling
from billing.domain.payments import CustomerId, Notice
from billing.ports.inbox import Keeper
from billing.ports.payments import Customers, Payments, WebhookVerifier
from easel_kit.clock import Clock
from easel_kit.errors import NotFound


class Notices:
    """Checks webhooks and keeps them; whatever comes of one happens later."""

    def __init__(
        self,
        verifier: WebhookVerifier,
        inbox: Keeper,
        customers: Customers,
        payments: Payments | None,
        clock: Clock,
    ) -> None:
        """`customers`, else `payments`, knows whose payment it was where no customer is named."""
        self._verifier = verifier
        self._inbox = inbox
        self._customers = customers
        self._payments = payments
        self._clock = clock

    async def ingest(self, payload: bytes, signature: str) -> tuple[Notice, bool]:
        """Keeps a webhook; answers it and whether it was new.

        Raises:
            Unauthenticated: it is not signed by Stripe, or too long ago.
            InvalidInput: signed, but no event of this mode.
            DependencyDown: not kept: the database is away, or Stripe, whom the payment belongs to.
            DeadlineExceeded: as DependencyDown.
        """
        now = self._clock.now()
        notice = self._verifier.verify(payload, signature, now)
        if notice.customer_id is None and notice.payment and is_telling(notice.type):
            notice = replace(notice, customer_id=await self._payer(notice.payment))
        return notice, await self._inbox.keep(notice, now)

    async def _payer(self, payment: str) -> CustomerId | None:
        """Who made a payment. One that is not known yet may be a look's that began before this."""
        known = await self._customers.of_payment(payment)
        if known is not None or self._payments is None:
            return known
        try:
            return await self._payments.customer_of(payment)
        except NotFound:
            return None
