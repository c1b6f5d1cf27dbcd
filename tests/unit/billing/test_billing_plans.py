"""Plan documents and the catalogue."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from billing.domain.plans import Catalogue, PackVersion, PlanTerms, PlanVersion, parse_plan_book
from billing.domain.pricing import PriceTable, Work
from easel_kit.errors import Forbidden, InvalidInput, NotFound
from easel_kit.ids import ModelKey

PLAN: dict[str, Any] = {
    "key": "free",
    "name": "Free",
    "price_cents": 0,
    "monthly_millicredits": 50_000,
    "priority": 0,
    "weight": 1,
    "max_running": 1,
    "max_waiting": 2,
    "queue_time_s": 60,
    "max_pixels": 4096,
    "max_images": 2,
    "requests_per_minute": 60,
    "storage_bytes": 2**30,
    "model_keys": ["shapes-64"],
}

PACK: dict[str, Any] = {
    "key": "small",
    "name": "100 credits",
    "price_cents": 500,
    "millicredits": 100_000,
    "valid_days": 365,
}

DOCUMENT: dict[str, Any] = {
    "default": "free",
    "currency": "usd",
    "prices": {"default": 100, "models": {"shapes-64": 10_000}},
    "plans": [PLAN, PLAN | {"key": "pro", "price_cents": 1900, "model_keys": []}],
    "packs": [PACK, PACK | {"key": "large", "price_cents": 4000}],
}


def terms(**changes: object) -> PlanTerms:
    return parse_plan_book(DOCUMENT | {"plans": [PLAN | changes]}).plans[0]


WORK = Work(ModelKey("shapes-64"), 64, 64, 10, 1)


def test_a_document_is_typed() -> None:
    book = parse_plan_book(DOCUMENT)
    assert book.default == "free"
    assert [plan.key for plan in book.plans] == ["free", "pro"]
    free = book.plans[0]
    assert free.prices == PriceTable(100, ((ModelKey("shapes-64"), 10_000),))
    assert (free.currency, free.max_waiting, free.model_keys) == ("usd", 2, ("shapes-64",))


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("default",), "gold", "default"),
        (("default",), None, "default"),
        (("currency",), "US$", "currency"),
        (("prices", "default"), 0, r"prices\.default"),
        (("prices", "models", "x"), 1.5, r"prices\.models\.x"),
        (("prices", "extra"), 1, r"prices\.extra"),
        (("extra",), 1, "extra"),
        (("plans",), [], "plans"),
        (("plans",), ["free"], "plans"),
        (("plans", 0, "key"), "Free!", r"plans\[0\]\.key"),
        (("plans", 0, "name"), "", r"plans\[0\]\.name"),
        (("plans", 0, "weight"), 0, r"plans\[0\]\.weight"),
        (("plans", 1, "max_waiting"), -1, r"plans\[1\]\.max_waiting"),
        (("plans", 0, "priority"), True, r"plans\[0\]\.priority"),
        (("plans", 0, "max_pixels"), 10**9 + 1, r"plans\[0\]\.max_pixels"),
        (("plans", 0, "model_keys"), [1], r"plans\[0\]\.model_keys"),
        (("plans", 0, "wieght"), 1, r"plans\[0\]\.wieght"),
        (("plans", 1, "key"), "free", "plans: two plans"),
        (("plans", 0, "storage_bytes"), 10**15 + 1, r"plans\[0\]\.storage_bytes"),
        (("packs",), "large", "packs"),
        (("packs", 0, "price_cents"), 0, r"packs\[0\]\.price_cents"),
        (("packs", 1, "millicredits"), 0, r"packs\[1\]\.millicredits"),
        (("packs", 1, "valid_days"), 3651, r"packs\[1\]\.valid_days"),
        (("packs", 1, "days"), 1, r"packs\[1\]\.days"),
        (("packs", 1, "key"), "small", "packs: two packs"),
    ],
)
def test_what_is_wrong_is_named(path: tuple[str | int, ...], value: object, named: str) -> None:
    document: Any = deepcopy(DOCUMENT)
    table = document
    for step in path[:-1]:
        table = table[step]
    table[path[-1]] = value
    with pytest.raises(InvalidInput, match=f"^{named}"):
        parse_plan_book(document)


def test_equal_terms_have_equal_fingerprints_and_any_change_another() -> None:
    assert terms().fingerprint == terms().fingerprint
    changed: list[dict[str, Any]] = [
        {key: value + 1} if isinstance(value, int) else {key: "other"}
        for key, value in PLAN.items()
        if key not in {"key", "model_keys"}
    ]
    prints = {terms(**change).fingerprint for change in ({}, *changed, {"model_keys": []})}
    assert len(prints) == len(PLAN)


def test_the_order_of_prices_in_a_document_does_not_matter() -> None:
    models = {"a": 1, "b": 2}
    one, two = (
        parse_plan_book(DOCUMENT | {"prices": {"default": 1, "models": order}}).plans[0]
        for order in (models, dict(reversed(models.items())))
    )
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(
    ("work", "named"),
    [
        (replace(WORK, width_px=72), "^picture size: 72 x 64"),
        (replace(WORK, image_count=3), "^images: 3"),
        (replace(WORK, model_key=ModelKey("other")), "^model: other"),
    ],
)
def test_work_beyond_the_plan_is_forbidden_by_name(work: Work, named: str) -> None:
    with pytest.raises(Forbidden, match=named):
        terms().price_of(work)


def test_work_at_the_limits_has_a_price() -> None:
    assert terms().price_of(replace(WORK, image_count=2)) == 820
    assert terms(model_keys=[]).price_of(replace(WORK, model_key=ModelKey("other"))) == 5


def test_the_catalogue_lists_finds_and_renews() -> None:
    book = parse_plan_book(DOCUMENT)
    catalogue = Catalogue(
        "free",
        [PlanVersion(3, plan) for plan in reversed(book.plans)],
        [PackVersion(2, pack) for pack in reversed(book.packs)],
    )
    assert [plan.key for plan in catalogue] == ["free", "pro"]
    assert catalogue.default.key == "free"
    assert catalogue.get("pro").terms.price_cents == 1900
    with pytest.raises(NotFound):
        catalogue.get("gold")
    assert [pack.key for pack in catalogue.packs] == ["small", "large"]
    assert catalogue.pack("large").version == 2
    with pytest.raises(NotFound, match="pack"):
        catalogue.pack("free")
    old, withdrawn = PlanVersion(1, terms()), PlanVersion(1, replace(terms(), key="old"))
    assert catalogue.successor(old).version == 3
    assert catalogue.successor(withdrawn) == withdrawn


def test_a_document_may_have_no_packs() -> None:
    without = {key: value for key, value in DOCUMENT.items() if key != "packs"}
    assert parse_plan_book(without).packs == ()


def test_a_pack_that_says_something_else_has_another_fingerprint() -> None:
    small, large = parse_plan_book(DOCUMENT).packs
    assert small.fingerprint != large.fingerprint
    assert replace(large, key="small", price_cents=500).fingerprint == small.fingerprint
