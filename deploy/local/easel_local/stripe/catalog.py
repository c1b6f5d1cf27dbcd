"""Products and prices."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from stripe.params import (
    PriceCreateParams,
    PriceListParams,
    PriceRetrieveParams,
    PriceUpdateParams,
    ProductCreateParams,
    ProductListParams,
    ProductRetrieveParams,
    ProductUpdateParams,
)

from easel_local.stripe.calls import Call, Endpoint, required_one
from easel_local.stripe.objects import Obj, changed, merge_metadata, new_id
from easel_local.stripe.refusal import invalid, not_served, wrong_state
from easel_local.stripe.rendering import render
from easel_local.stripe.world import World

_MAX_AMOUNT = 99_999_999  # eight digits, as at Stripe
_MAX_YEARS = {"day": 1095, "week": 156, "month": 36, "year": 3}  # of interval_count: three years
_CURRENCIES = frozenset({"usd", "eur", "gbp", "chf", "cad", "aud", "sek", "nok", "dkk", "pln"})


def make_product(world: World, params: Obj) -> Obj:
    """A new product of checked parameters."""
    product_id = params.get("id") or new_id("prod")
    if world.find("product", product_id) is not None:
        raise wrong_state(
            f"Product already exists: {product_id}", code="resource_already_exists", param="id"
        )
    now = world.clock.now()
    product = world.add(
        {
            "id": product_id,
            "object": "product",
            "active": params.get("active", True),
            "created": now,
            "default_price": None,
            "description": params.get("description"),
            "images": params.get("images", []),
            "livemode": False,
            "marketing_features": params.get("marketing_features", []),
            "metadata": merge_metadata({}, params.get("metadata", {})),
            "name": params["name"],
            "package_dimensions": None,
            "shippable": params.get("shippable"),
            "statement_descriptor": params.get("statement_descriptor"),
            "tax_code": params.get("tax_code"),
            "type": "service",
            "unit_label": params.get("unit_label"),
            "updated": now,
            "url": params.get("url"),
        }
    )
    world.emit("product.created", render(world, product), created=now)
    return product


def make_price(world: World, params: Obj, *, param: str = "", is_inline: bool = False) -> Obj:
    """A new price of checked parameters.

    Args:
        world: where it is kept.
        params: of PriceCreateParams or of some ``price_data``.
        param: where these stand, for refusals.
        is_inline: made for one use (``price_data``): it is not active.

    Raises:
        Refused: amount, currency, interval or product cannot be.
    """
    currency = params["currency"].lower()
    if currency not in _CURRENCIES:
        raise invalid(_under(param, "currency"), f"the stand-in takes {sorted(_CURRENCIES)}")
    amount = _amount(params, param)
    recurring = _recurring(params.get("recurring"), param)
    product_id = _product_of(world, params, param)
    lookup_key = _free_lookup_key(world, params)
    now = world.clock.now()
    price = world.add(
        {
            "id": new_id("price"),
            "object": "price",
            "active": False if is_inline else params.get("active", True),
            "billing_scheme": "per_unit",
            "created": now,
            "currency": currency,
            "custom_unit_amount": None,
            "livemode": False,
            "lookup_key": lookup_key,
            "metadata": merge_metadata({}, params.get("metadata", {})),
            "nickname": params.get("nickname"),
            "product": product_id,
            "recurring": recurring,
            "tax_behavior": params.get("tax_behavior", "unspecified"),
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "recurring" if recurring else "one_time",
            "unit_amount": amount,
            "unit_amount_decimal": str(amount),
        }
    )
    world.emit("price.created", render(world, price), created=now)
    return price


def _under(param: str, name: str) -> str:
    return f"{param}[{name}]" if param else name


def _amount(params: Obj, param: str) -> int:
    field = required_one(params, "unit_amount", "unit_amount_decimal")
    amount = Decimal(params[field])
    if amount != int(amount):
        raise not_served(_under(param, "unit_amount_decimal") + " with fractions of a cent")
    if not 0 <= amount <= _MAX_AMOUNT:
        raise invalid(_under(param, field), f"must be from 0 to {_MAX_AMOUNT}")
    return int(amount)


def _recurring(given: Obj | None, param: str) -> Obj | None:
    if given is None:
        return None
    if given.get("usage_type", "licensed") != "licensed" or "meter" in given:
        raise not_served(_under(param, "recurring[usage_type]"))
    if given.get("trial_period_days"):
        raise not_served(_under(param, "recurring[trial_period_days]"))
    count = given.get("interval_count", 1)
    if not 1 <= count <= _MAX_YEARS[given["interval"]]:
        raise invalid(_under(param, "recurring[interval_count]"), "at least 1, three years at most")
    return {
        "interval": given["interval"],
        "interval_count": count,
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def _product_of(world: World, params: Obj, param: str) -> str:
    if required_one(params, "product", "product_data") == "product":
        product = world.get("product", params["product"], param=_under(param, "product"))
    else:
        product = make_product(world, params["product_data"])
    return str(product["id"])


def _free_lookup_key(world: World, params: Obj) -> str | None:
    """The asked key, taken from the price that has it where that was asked, too."""
    key: str | None = params.get("lookup_key")
    if key is None:
        return None
    for price in world.every("price"):
        if price["lookup_key"] == key:
            if not params.get("transfer_lookup_key"):
                raise wrong_state(
                    f"A price (`{price['id']}`) already uses that lookup key.", param="lookup_key"
                )
            price["lookup_key"] = None
            world.emit(
                "price.updated",
                render(world, price),
                {"lookup_key": key},
                created=world.clock.now(),
            )
    return key


def _create_price(call: Call) -> Obj:
    return render(call.world, make_price(call.world, call.params))


def _update_price(call: Call) -> Obj:
    world, params = call.world, call.params
    price = world.get("price", call.id)
    before = render(world, price)
    if params.get("lookup_key", price["lookup_key"]) != price["lookup_key"]:
        price["lookup_key"] = _free_lookup_key(world, params) if params["lookup_key"] else None
    return _updated(call, price, before, ("active", "nickname", "tax_behavior"))


def _updated(call: Call, obj: Obj, before: Obj, names: tuple[str, ...]) -> Obj:
    obj.update(call.given(*names))
    if "metadata" in call.params:
        obj["metadata"] = merge_metadata(obj["metadata"], call.params["metadata"])
    after = render(call.world, obj)
    if after != before:
        now = call.world.clock.now()
        if "updated" in obj:
            obj["updated"] = after["updated"] = now
        call.world.version += 1
        kind = f"{obj['object']}.updated"
        call.world.emit(kind, after, changed(before, after), created=now)
    return after


def _list_prices(call: Call) -> Obj:
    wanted = call.params
    for name in ("recurring",):
        if name in wanted and "meter" in wanted[name]:
            raise not_served(f"{name}[meter]")
    return call.page(
        price for price in call.world.every("price") if _is_wanted_price(price, wanted)
    )


def _is_wanted_price(price: Obj, wanted: dict[str, Any]) -> bool:
    recurring = price["recurring"] or {}
    return (
        all(price[name] == wanted[name] for name in _PRICE_FILTERS if name in wanted)
        and price["lookup_key"] in wanted.get("lookup_keys", [price["lookup_key"]])
        and all(recurring.get(name) == value for name, value in wanted.get("recurring", {}).items())
    )


_PRICE_FILTERS = ("active", "currency", "product", "type")


def _create_product(call: Call) -> Obj:
    world = call.world
    product = make_product(world, call.params)
    if "default_price_data" in call.params:
        data = call.params["default_price_data"] | {"product": product["id"]}
        product["default_price"] = make_price(world, data, param="default_price_data")["id"]
    return render(world, product)


def _update_product(call: Call) -> Obj:
    product = call.world.get("product", call.id)
    before = render(call.world, product)
    default = call.params.get("default_price")
    if default:
        product["default_price"] = call.world.get("price", default, param="default_price")["id"]
    return _updated(call, product, before, ("active", "name", "description", "unit_label", "url"))


def _list_products(call: Call) -> Obj:
    wanted = call.params
    return call.page(
        product
        for product in call.world.every("product")
        if all(product[name] == wanted[name] for name in ("active", "url") if name in wanted)
        and product["id"] in wanted.get("ids", [product["id"]])
    )


_PRICE_EXTRAS = frozenset(
    {"billing_scheme", "currency_options", "custom_unit_amount", "tiers", "transform_quantity"}
)

ENDPOINTS = (
    Endpoint("POST", "/v1/products", ProductCreateParams, _create_product),
    Endpoint("GET", "/v1/products", ProductListParams, _list_products),
    Endpoint(
        "GET",
        "/v1/products/{id}",
        ProductRetrieveParams,
        lambda call: render(call.world, call.world.get("product", call.id)),
    ),
    Endpoint("POST", "/v1/products/{id}", ProductUpdateParams, _update_product),
    Endpoint("POST", "/v1/prices", PriceCreateParams, _create_price, _PRICE_EXTRAS),
    Endpoint("GET", "/v1/prices", PriceListParams, _list_prices),
    Endpoint(
        "GET",
        "/v1/prices/{id}",
        PriceRetrieveParams,
        lambda call: render(call.world, call.world.get("price", call.id)),
    ),
    Endpoint(
        "POST", "/v1/prices/{id}", PriceUpdateParams, _update_price, frozenset({"currency_options"})
    ),
)
