"""Webhooks on their way into the inbox."""

from __future__ import annotations

from dataclasses import replace

from billing.domain.payments import Notice
from billing.ports.inbox import Keeper
from billing.ports.payments import Customers, WebhookVerifier
from easel_kit.clock import Clock


class Notices:
    """Checks webhooks and keeps them; whatever comes of one happens later."""

    def __init__(
        self, verifier: WebhookVerifier, inbox: Keeper, customers: Customers, clock: Clock
    ) -> None:
        """`customers` knows whose payment it was where an event names no customer."""
        self._verifier = verifier
        self._inbox = inbox
        self._customers = customers
        self._clock = clock

    async def ingest(self, payload: bytes, signature: str) -> tuple[Notice, bool]:
        """Keeps a webhook; answers it and whether it was new.

        Raises:
            Unauthenticated: it is not signed by Stripe, or too long ago.
            InvalidInput: signed, but no event of this mode.
        """
        now = self._clock.now()
        notice = self._verifier.verify(payload, signature, now)
        if notice.customer_id is None and notice.payment:
            customer_id = await self._customers.of_payment(notice.payment)
            notice = replace(notice, customer_id=customer_id)
        return notice, await self._inbox.keep(notice, now)
