"""Plans as data: what each one grants and allows, read from a document and kept as versions.

A version never changes. A document that says something new about a plan makes a new version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from billing.domain.pricing import PriceTable, Work, price
from easel_kit.errors import Forbidden, InvalidInput, NotFound
from easel_kit.ids import ModelKey

_KEY = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_CURRENCY = re.compile(r"[a-z]{3}")
# Keeps every price far inside 64 bits: 10^9 x the largest work that the RPC takes.
_MAX_NUMBER = 10**9
_MAX_BYTES = 10**15
_MAX_DAYS = 3_650

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """What a plan says; see `plans.toml` for the units."""

    key: str
    name: str
    price_cents: int
    currency: str
    monthly_millicredits: int
    priority: int
    weight: int
    max_running: int
    max_waiting: int
    queue_time_s: int
    max_pixels: int
    max_images: int
    requests_per_minute: int
    storage_bytes: int
    model_keys: tuple[ModelKey, ...]
    prices: PriceTable

    @property
    def fingerprint(self) -> str:
        """Lower-case hexadecimal SHA-256 of all terms; equal terms have equal fingerprints."""
        return _fingerprint(asdict(self))

    def price_of(self, work: Work) -> int:
        """Millicredits for work that the plan allows.

        Raises:
            Forbidden: the picture's size, the number of pictures or the model is not in the plan.
        """
        if work.pixels > self.max_pixels:
            raise Forbidden(
                f"picture size: {work.width_px} x {work.height_px} is more than the "
                f"{self.max_pixels} pixels of the plan {self.key}"
            )
        if work.image_count > self.max_images:
            raise Forbidden(
                f"images: {work.image_count} at once are more than the "
                f"{self.max_images} of the plan {self.key}"
            )
        if self.model_keys and work.model_key not in self.model_keys:
            raise Forbidden(f"model: {work.model_key} is not in the plan {self.key}")
        return price(work, self.prices)


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """Terms under the number that they were published with."""

    version: int
    terms: PlanTerms

    @property
    def key(self) -> str:
        """The plan's key."""
        return self.terms.key


@dataclass(frozen=True, slots=True)
class PackTerms:
    """Credits that are sold once; see `plans.toml` for the units."""

    key: str
    name: str
    price_cents: int
    currency: str
    millicredits: int
    valid_days: int

    @property
    def fingerprint(self) -> str:
        """As `PlanTerms.fingerprint`."""
        return _fingerprint(asdict(self))


@dataclass(frozen=True, slots=True)
class PackVersion:
    """A pack under the number that it was published with."""

    version: int
    terms: PackTerms

    @property
    def key(self) -> str:
        """The pack's key."""
        return self.terms.key


@dataclass(frozen=True, slots=True)
class PlanBook:
    """A plan document: the plans and packs on offer, and the plan that new accounts get."""

    default: str
    plans: tuple[PlanTerms, ...]
    packs: tuple[PackTerms, ...] = ()


class Catalogue:
    """The plans and packs on offer, in their published versions."""

    def __init__(
        self, default: str, plans: Sequence[PlanVersion], packs: Sequence[PackVersion] = ()
    ) -> None:
        """`default` is the key of the plan that new accounts get."""
        self._plans = {plan.key: plan for plan in plans}
        self._packs = {pack.key: pack for pack in packs}
        self.default = self._plans[default]

    def __iter__(self) -> Iterator[PlanVersion]:
        """Cheapest first."""
        return iter(
            sorted(self._plans.values(), key=lambda plan: (plan.terms.price_cents, plan.key))
        )

    def get(self, key: str) -> PlanVersion:
        """The version of a plan that is on offer.

        Raises:
            NotFound: no such plan is on offer.
        """
        if key not in self._plans:
            raise NotFound("plan", key)
        return self._plans[key]

    @property
    def packs(self) -> Sequence[PackVersion]:
        """Cheapest first."""
        return sorted(self._packs.values(), key=lambda pack: (pack.terms.price_cents, pack.key))

    def pack(self, key: str) -> PackVersion:
        """The version of a pack that is on offer.

        Raises:
            NotFound: no such pack is on offer.
        """
        if key not in self._packs:
            raise NotFound("pack", key)
        return self._packs[key]

    def successor(self, plan: PlanVersion) -> PlanVersion:
        """What an account on `plan` renews to: the offered version, or `plan` when withdrawn."""
        return self._plans.get(plan.key, plan)


def parse_plan_book(document: Mapping[str, object]) -> PlanBook:
    """Checks a plan document (the tables of a TOML file) and types it.

    Raises:
        InvalidInput: names what is missing, unknown or out of range.
    """
    top = _Table("", document)
    default = top.text("default")
    currency = top.text("currency", _CURRENCY)
    prices = _prices(top.table("prices"))
    plans = tuple(_terms(table, currency, prices) for table in top.tables("plans"))
    packs = tuple(_pack(table, currency) for table in top.tables("packs", optional=True))
    top.end()
    for field, keys in (("plans", [plan.key for plan in plans]), ("packs", [p.key for p in packs])):
        if len(set(keys)) != len(keys):
            raise InvalidInput(field, f"two {field} have the same key")
    if default not in {plan.key for plan in plans}:
        raise InvalidInput("default", f"there is no plan {default}")
    return PlanBook(default, plans, packs)


def _fingerprint(terms: Mapping[str, object]) -> str:
    text = json.dumps(terms, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _prices(table: _Table) -> PriceTable:
    models = table.table("models")
    factors = tuple((ModelKey(key), models.number(key, 1)) for key in sorted(models.keys))
    result = PriceTable(table.number("default", 1), factors)
    table.end()
    return result


def _terms(table: _Table, currency: str, prices: PriceTable) -> PlanTerms:
    terms = PlanTerms(
        key=table.text("key", _KEY),
        name=table.text("name"),
        price_cents=table.number("price_cents", 0),
        currency=currency,
        monthly_millicredits=table.number("monthly_millicredits", 0),
        priority=table.number("priority", 0),
        weight=table.number("weight", 1),
        max_running=table.number("max_running", 1),
        max_waiting=table.number("max_waiting", 0),
        queue_time_s=table.number("queue_time_s", 1),
        max_pixels=table.number("max_pixels", 1),
        max_images=table.number("max_images", 1),
        requests_per_minute=table.number("requests_per_minute", 1),
        storage_bytes=table.number("storage_bytes", 1, _MAX_BYTES),
        model_keys=tuple(ModelKey(key) for key in table.texts("model_keys")),
        prices=prices,
    )
    table.end()
    return terms


def _pack(table: _Table, currency: str) -> PackTerms:
    terms = PackTerms(
        key=table.text("key", _KEY),
        name=table.text("name"),
        price_cents=table.number("price_cents", 1),
        currency=currency,
        millicredits=table.number("millicredits", 1),
        valid_days=table.number("valid_days", 1, _MAX_DAYS),
    )
    table.end()
    return terms


class _Table:
    """A table of the document that complains with the full name of a field."""

    def __init__(self, name: str, content: Mapping[str, object]) -> None:
        self._name = name
        self._rest = dict(content)

    @property
    def keys(self) -> list[str]:
        return list(self._rest)

    def text(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        value = self._take(key, str)
        if not value or (pattern is not None and not pattern.fullmatch(value)):
            raise InvalidInput(self._field(key), "is not a valid value")
        return value

    def number(self, key: str, least: int, most: int = _MAX_NUMBER) -> int:
        value = self._take(key, int)
        if isinstance(value, bool) or not least <= value <= most:
            raise InvalidInput(self._field(key), f"must be {least} to {most}")
        return value

    def texts(self, key: str) -> list[str]:
        values: list[object] = self._take(key, list)
        texts = [value for value in values if isinstance(value, str) and value]
        if len(texts) != len(values):
            raise InvalidInput(self._field(key), "must be a list of names")
        return texts

    def table(self, key: str) -> _Table:
        return _Table(self._field(key), self._take(key, dict))

    def tables(self, key: str, *, optional: bool = False) -> list[_Table]:
        if optional and key not in self._rest:
            return []
        values: list[object] = self._take(key, list)
        tables = [
            _Table(f"{self._field(key)}[{index}]", value)
            for index, value in enumerate(values)
            if isinstance(value, dict)
        ]
        if not values or len(tables) != len(values):
            raise InvalidInput(self._field(key), "must be a list of tables")
        return tables

    def end(self) -> None:
        for key in self._rest:
            raise InvalidInput(self._field(key), "is unknown")

    def _take(self, key: str, kind: type[T]) -> T:
        value = self._rest.pop(key, None)
        if not isinstance(value, kind):
            raise InvalidInput(self._field(key), f"must be given as {kind.__name__}")
        return value

    def _field(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key
