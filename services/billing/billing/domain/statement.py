"""The statement of a calendar month (UTC) as CSV (RFC 4180), for people and for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from billing.domain.accounts import Period, months_after
from billing.domain.ledger import Line, decimal_credits

_HEADER = ("time", "kind", "reference", "description", "credits", "balance")
# What makes a spreadsheet take a text for a formula, by
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines of a ledger without a gap: after one sequence up to another, and the balance at both.

    Excerpts of one month and the next meet: each line is in one.
    """

    after: int
    up_to: int
    opening: int
    closing: int


def month(year: int, month_of_year: int) -> Period:
    """A calendar month, UTC."""
    start = datetime(year, month_of_year, 1, tzinfo=UTC)
    return Period(start, months_after(start, 1))


def beginning(period: Period, excerpt: Excerpt) -> bytes:
    """The header and the opening balance."""
    return _csv(
        (_HEADER, (_time(period.start), "opening", "", "", "", decimal_credits(excerpt.opening)))
    )


def middle(lines: Sequence[Line]) -> bytes:
    """Lines of the ledger, in the order given."""
    return _csv(
        (
            _time(line.booked_at),
            line.kind,
            _text(line.reference),
            _text(line.description),
            decimal_credits(line.available_change),
            decimal_credits(line.available_after),
        )
        for line in lines
    )


def end(period: Period, excerpt: Excerpt, now: datetime) -> bytes:
    """The closing balance; that of a month that is not over is as of now."""
    at = min(period.end, now)
    return _csv([(_time(at), "closing", "", "", "", decimal_credits(excerpt.closing))])


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
