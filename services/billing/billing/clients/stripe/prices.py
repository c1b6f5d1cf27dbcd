"""Products and prices: made when first sold, found by lookup key ever after.

A price's metadata says which plan or pack version it was made for; amounts are never read back as
such, only compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import stripe

from billing.clients.stripe.calls import StripeCalls
from billing.domain.plans import PackVersion, PlanVersion
from easel_kit.errors import Internal
from easel_kit.log import get_logger

_PLAN_KEY, _PLAN_VERSION = "plan_key", "plan_version"
_PACK_KEY, _PACK_VERSION = "pack_key", "pack_version"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PlanRef:
    """A plan version as a price names it."""

    key: str
    version: int


@dataclass(frozen=True, slots=True)
class _Offer:
    lookup_key: str
    product: str
    name: str
    cents: int
    currency: str
    is_monthly: bool
    metadata: dict[str, str]

    @property
    def params(self) -> dict[str, Any]:
        recurring = {"recurring": {"interval": "month"}} if self.is_monthly else {}
        return {
            "lookup_key": self.lookup_key,
            "product": self.product,
            "unit_amount": self.cents,
            "currency": self.currency,
            "metadata": self.metadata,
            **recurring,
        }


class StripePrices:
    """Prices by plan or pack version, and back. Both never change, so each is asked for once."""

    def __init__(self, calls: StripeCalls) -> None:
        """`calls` leads to Stripe."""
        self._calls = calls
        self._ids: dict[str, str] = {}
        self._plans: dict[str, PlanRef | None] = {}

    async def of_plan(self, plan: PlanVersion) -> str:
        """The id of the monthly price of a plan version."""
        terms = plan.terms
        return await self._price(
            _Offer(
                lookup_key=f"easel_{plan.key}_v{plan.version}",
                product=f"easel_plan_{plan.key}",
                name=terms.name,
                cents=terms.price_cents,
                currency=terms.currency,
                is_monthly=True,
                metadata={_PLAN_KEY: plan.key, _PLAN_VERSION: str(plan.version)},
            )
        )

    async def of_pack(self, pack: PackVersion) -> str:
        """The id of the price of a pack version."""
        terms = pack.terms
        return await self._price(
            _Offer(
                lookup_key=f"easel_pack_{pack.key}_v{pack.version}",
                product=f"easel_pack_{pack.key}",
                name=terms.name,
                cents=terms.price_cents,
                currency=terms.currency,
                is_monthly=False,
                metadata=pack_metadata(pack),
            )
        )

    async def plan_of(self, price_id: str) -> PlanRef | None:
        """What plan version a price was made for; None: none of ours."""
        if price_id not in self._plans:
            price = await self._calls.call(
                self._calls.v1.prices.retrieve_async(price_id), kind="price", key=price_id
            )
            self._plans[price_id] = plan_ref(price)
        return self._plans[price_id]

    async def _price(self, offer: _Offer) -> str:
        if offer.lookup_key not in self._ids:
            price = await self._find(offer) or await self._make(offer)
            if (price.unit_amount, price.currency) != (offer.cents, offer.currency):
                # another installation sells other plans under the same keys
                _log.error("stripe.price_differs", lookup_key=offer.lookup_key, price=price.id)
                raise Internal("the payment provider has another price for this")
            self._ids[offer.lookup_key] = price.id
        return self._ids[offer.lookup_key]

    async def _find(self, offer: _Offer) -> stripe.Price | None:
        found = await self._calls.call(
            self._calls.v1.prices.list_async(
                {"lookup_keys": [offer.lookup_key], "active": True, "limit": 1}
            )
        )
        return found.data[0] if found.data else None

    async def _make(self, offer: _Offer) -> stripe.Price:
        await self._calls.call(self._product(offer))
        return await self._calls.call(self._create(offer))

    async def _product(self, offer: _Offer) -> None:
        try:
            await self._calls.v1.products.create_async(
                {"id": offer.product, "name": offer.name},
                {"idempotency_key": f"product/{offer.product}/{offer.name}"},
            )
        except stripe.InvalidRequestError as error:
            # an earlier version, or a process beside this one, made it
            if error.code != "resource_already_exists":
                raise

    async def _create(self, offer: _Offer) -> stripe.Price:
        params: Any = offer.params
        try:
            return await self._calls.v1.prices.create_async(
                params, {"idempotency_key": f"price/{offer.lookup_key}"}
            )
        except stripe.InvalidRequestError:
            # a process beside this one has the lookup key since
            found = await self._find(offer)
            if found is None:
                raise
            return found


def plan_ref(price: stripe.Price) -> PlanRef | None:
    """The plan version in a price's metadata; None: none, or not as this code writes it."""
    metadata = metadata_of(price.metadata)
    return _ref(metadata.get(_PLAN_KEY), metadata.get(_PLAN_VERSION))


def metadata_of(metadata: stripe.StripeObject | None) -> dict[str, str]:
    """Metadata as a plain mapping."""
    return {} if metadata is None else dict(metadata.to_dict())


def pack_metadata(pack: PackVersion) -> dict[str, str]:
    """How a pack version is named on prices and Checkout Sessions."""
    return {_PACK_KEY: pack.key, _PACK_VERSION: str(pack.version)}


def pack_ref(metadata: dict[str, str]) -> PlanRef | None:
    """The pack version in metadata, as `plan_ref`."""
    return _ref(metadata.get(_PACK_KEY), metadata.get(_PACK_VERSION))


def _ref(key: str | None, version: str | None) -> PlanRef | None:
    if not key or not version or not version.isascii() or not version.isdigit():
        return None
    return PlanRef(key, int(version))
