"""Billing periods and what a part of one costs. All times are seconds since the epoch, UTC."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from easel_local.stripe.objects import Obj

_MONTHS = {"month": 1, "year": 12}
_DAYS = {"day": 1, "week": 7}


def period_end(anchor: int, after: int, recurring: Obj) -> int:
    """The first end of a period that lies after a moment, counted from the anchor.

    Months keep the anchor's day where they have it and end on their last where they do not:
    January 31 is followed by February 28 and March 31, as at Stripe.
    """
    count = recurring["interval_count"]
    start = datetime.fromtimestamp(anchor, UTC)
    if recurring["interval"] in _DAYS:
        step_s = int(timedelta(days=_DAYS[recurring["interval"]] * count).total_seconds())
        return anchor + ((after - anchor) // step_s + 1) * step_s
    step = _MONTHS[recurring["interval"]] * count
    moment = datetime.fromtimestamp(after, UTC)
    apart = (moment.year - start.year) * 12 + moment.month - start.month
    number = max(0, apart // step - 1)
    while True:
        end = int(_add_months(start, number * step).timestamp())
        if end > after:
            return end
        number += 1


def _add_months(start: datetime, months: int) -> datetime:
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return start.replace(year=year, month=month + 1, day=min(start.day, last))


def share(amount_cents: int, start: int, end: int, now: int) -> int:
    """What the rest of a period costs from now on, to the nearest cent, halves up."""
    if end <= start:
        return 0
    part = Fraction(amount_cents * (end - now), end - start)
    return int(part + Fraction(1, 2)) if part >= 0 else -int(-part + Fraction(1, 2))
