"""Money: what can be bought, how it is paid, what jobs have cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

from easel_kit.errors import DomainError, InvalidInput
from easel_kit.ids import JobId, ModelKey
from gateway.domain.account import Plan

_MAX_URL_CHARS = 2000
_DEFAULT_PORTS = {"http": 80, "https": 443}


class BadSignature(DomainError):
    """A webhook that does not prove who sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Credits that can be bought once, on any plan."""

    key: str
    name: str
    price_cents: int
    currency: str
    millicredits: int
    valid_days: int


@dataclass(frozen=True, slots=True)
class Offers:
    """Everything on offer, cheapest first."""

    plans: tuple[Plan, ...]
    packs: tuple[Pack, ...]


class Ware(StrEnum):
    """The kinds of things that are bought."""

    PLAN = "plan"
    PACK = "pack"


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a user means to pay for, by its key."""

    ware: Ware
    key: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """A page of the payment provider's where the user pays."""

    url: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """What one job has cost; the work as it was priced."""

    job_id: JobId
    ended_at: datetime
    model_key: ModelKey
    width_px: int
    height_px: int
    steps: int
    image_count: int
    held_millicredits: int
    charged_millicredits: int
    reason: str


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Usage lines, newest first, with totals over all pages; an empty token: the last page."""

    lines: tuple[UsageLine, ...]
    next_page_token: str
    jobs: int
    charged_millicredits: int


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month, UTC."""

    year: int
    month: int

    def __str__(self) -> str:
        """As in `2026-11`."""
        return f"{self.year:04d}-{self.month:02d}"


@dataclass(frozen=True, slots=True)
class ReturnOrigins:
    """The web origins that a payment page may lead back to, so that it is no open redirect."""

    allowed: frozenset[str]

    @classmethod
    def of(cls, *urls: str) -> ReturnOrigins:
        """The origins of these URLs; empty ones are left out.

        Raises:
            InvalidInput: one of them is no absolute http(s) URL.
        """
        return cls(frozenset(origin_of(url, "return_origins") for url in urls if url))

    def check(self, url: str, field: str) -> None:
        """Refuses a URL that leads elsewhere.

        Raises:
            InvalidInput: `field` is no absolute http(s) URL, or of another origin.
        """
        origin = origin_of(url, field)
        if origin not in self.allowed:
            known = ", ".join(sorted(self.allowed)) or "none are set up"
            raise InvalidInput(field, f"must be of an origin that is set up here: {known}")


def origin_of(url: str, field: str) -> str:
    """Scheme, host and port of an absolute http(s) URL, e.g. `https://app.example`.

    Browsers and libraries differ over backslashes, spaces and user names in URLs: none are taken.

    Raises:
        InvalidInput: it is none, or one that could be read in two ways.
    """
    wrong = InvalidInput(field, "must be an absolute http or https URL without a user name")
    if len(url) > _MAX_URL_CHARS or not url.isascii() or not url.isprintable():
        raise wrong
    if " " in url or "\\" in url:
        raise wrong
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise wrong from error
    if parts.scheme not in _DEFAULT_PORTS or not host or "@" in parts.netloc:
        raise wrong
    shown = f"[{host}]" if ":" in host else host
    if port is None or port == _DEFAULT_PORTS[parts.scheme]:
        return f"{parts.scheme}://{shown}"
    return f"{parts.scheme}://{shown}:{port}"
