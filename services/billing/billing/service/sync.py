"""What is kept of a customer, brought to what the payment provider says."""

from __future__ import annotations

from datetime import timedelta

from billing.domain.accounts import Period, period_at
from billing.domain.customers import Outcome, PlanPeriod
from billing.domain.effects import Published, deciding, effects
from billing.domain.payments import CustomerId, CustomerSnapshot, SubscriptionSnapshot
from billing.domain.plans import Catalogue, PackVersion, PlanVersion
from billing.ports.payments import Customers, Payments, Versions
from easel_kit.clock import Clock
from easel_kit.errors import Conflict, NotFound

# a customer changes a few times a month; so many changes in a row are a fault
_MAX_TRIES = 8


class CustomerSync:
    """Brings what is kept of a customer to what Stripe says."""

    def __init__(
        self,
        payments: Payments,
        customers: Customers,
        versions: Versions,
        catalogue: Catalogue,
        clock: Clock,
        *,
        credit_grace: timedelta,
    ) -> None:
        """`credit_grace` is how long the credits of a paid month outlive it."""
        self._payments = payments
        self._customers = customers
        self._versions = versions
        self._catalogue = catalogue
        self._clock = clock
        self._credit_grace = credit_grace

    async def sync(self, customer_id: CustomerId) -> bool:
        """Looks at the customer again and applies what is there; whether that changed anything.

        Idempotent, and safe beside others: what was looked at before someone else applied a newer
        look is thrown away.

        Raises:
            NotFound: the customer is none of ours.
            Conflict: others were faster, again and again.
            DependencyDown: Stripe or the database does not answer.
            DeadlineExceeded: Stripe did not answer in time.
        """
        for _ in range(_MAX_TRIES):
            # the version first: what changes while Stripe answers must be noticed
            customer = await self._customers.find(customer_id)
            if customer is None:
                raise NotFound("customer", customer_id)
            snapshot = await self._payments.snapshot(customer_id)
            outcome = await self._outcome(snapshot)
            changed = await self._customers.apply(customer, snapshot, outcome, self._clock.now())
            if changed is not None:
                return changed
        raise Conflict("the customer keeps changing")

    async def _outcome(self, snapshot: CustomerSnapshot) -> Outcome:
        published = await self._published(snapshot)
        now = self._clock.now()
        subscription = deciding(
            [
                one
                for one in snapshot.subscriptions
                if (one.plan_key, one.plan_version) in published.plans
            ]
        )
        return Outcome(
            subscription_id="" if subscription is None else subscription.id,
            paid=None if subscription is None else _paid(subscription, published),
            otherwise=PlanPeriod(self._catalogue.default, period_at(now, now)),
            effects=effects(snapshot, published, self._credit_grace),
        )

    async def _published(self, snapshot: CustomerSnapshot) -> Published:
        plans: dict[tuple[str, int], PlanVersion] = {}
        packs: dict[tuple[str, int], PackVersion] = {}
        named = {(one.plan_key, one.plan_version) for one in snapshot.subscriptions}
        named |= {(line.plan_key, line.plan_version) for line in snapshot.lines}
        for key, version in named:
            try:
                plans[key, version] = await self._versions.get(key, version)
            except NotFound:
                continue  # of another installation that shares the account at Stripe
        for key, version in {(one.pack_key, one.pack_version) for one in snapshot.packs}:
            try:
                packs[key, version] = await self._versions.pack(key, version)
            except NotFound:
                continue
        return Published(plans, packs)


def _paid(subscription: SubscriptionSnapshot, published: Published) -> PlanPeriod:
    plan = published.plans[subscription.plan_key, subscription.plan_version]
    return PlanPeriod(plan, Period(subscription.period_start, subscription.period_end))
