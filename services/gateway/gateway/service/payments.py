"""What users pay with money, and what the payment provider says of it."""

from __future__ import annotations

from easel_kit.errors import Overloaded
from easel_kit.ids import UserId, new_id
from gateway.domain.account import Account
from gateway.domain.money import BadSignature, Checkout, Purchase, ReturnOrigins
from gateway.ports import Payments, Webhooks


class Purchases:
    """A user's way to pay; whom a user pays, and what for, is billing's."""

    def __init__(self, payments: Payments, origins: ReturnOrigins) -> None:
        """Pages to pay on lead back to these origins alone."""
        self._payments = payments
        self._origins = origins

    async def checkout(
        self, user_id: UserId, purchase: Purchase, *, success_url: str, cancel_url: str, key: str
    ) -> Checkout:
        """A page to pay on; the same user and key answer with the same page, no key with a new one.

        Raises:
            InvalidInput: a URL leads elsewhere.
            NotFound: no such plan or pack.
            InvalidState: a subscription is there already, or no payments are set up.
            Conflict: the key was used for something else.
        """
        self._origins.check(success_url, "success_url")
        self._origins.check(cancel_url, "cancel_url")
        return await self._payments.checkout(
            user_id,
            purchase,
            success_url=success_url,
            cancel_url=cancel_url,
            key=key or new_id("pay"),
        )

    async def portal(self, user_id: UserId, *, return_url: str) -> str:
        """The URL of a page to manage cards, invoices and the subscription.

        Raises:
            InvalidInput: the URL leads elsewhere.
            InvalidState: the user has never paid, or no payments are set up.
        """
        self._origins.check(return_url, "return_url")
        return await self._payments.portal(user_id, return_url=return_url)

    async def change(self, user_id: UserId, plan_key: str) -> Account:
        """Moves the subscription to another paid plan now.

        Raises:
            NotFound: no such plan.
            InvalidState: no subscription, a declined card, or no payments are set up.
        """
        return await self._payments.change_subscription(user_id, plan_key)

    async def cancel(self, user_id: UserId) -> Account:
        """Lets the subscription end with its period. Idempotent.

        Raises:
            InvalidState: no subscription, or no payments are set up.
        """
        return await self._payments.cancel_subscription(user_id, resume=False)

    async def resume(self, user_id: UserId) -> Account:
        """Takes a cancellation back before it has come about. Idempotent.

        Raises:
            InvalidState: no subscription, or no payments are set up.
        """
        return await self._payments.cancel_subscription(user_id, resume=True)


class Notices:
    """Webhooks of the payment provider on their way to billing.

    Anybody may knock here, and behind a proxy that hides addresses all who do look like the
    provider: a limit by address would shut it out for others' knocks. So what is bounded is how
    many are looked at together; who is turned away comes again, as the provider does for days.
    """

    def __init__(self, webhooks: Webhooks, *, at_once: int) -> None:
        """At most `at_once` are with billing together."""
        self._webhooks = webhooks
        self._free = at_once

    async def accept(self, payload: bytes, signature: str) -> None:
        """Returns once billing has kept it.

        Raises:
            BadSignature: it does not come from the payment provider.
            Overloaded: too many at once.
        """
        if not signature:
            raise BadSignature("the header Stripe-Signature is missing")
        if self._free <= 0:
            raise Overloaded("too many webhooks at once")
        self._free -= 1
        try:
            await self._webhooks.ingest(payload, signature)
        finally:
            self._free += 1
