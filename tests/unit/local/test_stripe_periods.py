"""Periods of subscriptions and what a part of one costs."""

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_local.stripe.periods import period_end, share

DAY_S = 86_400


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("anchor", "after", "interval", "count", "end"),
    [
        ("2027-01-31T10:00", "2027-01-31T10:00", "month", 1, "2027-02-28T10:00"),
        ("2027-01-31T10:00", "2027-02-28T10:00", "month", 1, "2027-03-31T10:00"),
        ("2028-01-31", "2028-01-31", "month", 1, "2028-02-29"),
        ("2027-11-15", "2027-12-15", "month", 1, "2028-01-15"),
        ("2027-11-30", "2027-11-30", "month", 3, "2028-02-29"),
        ("2028-02-29", "2028-02-29", "year", 1, "2029-02-28"),
        ("2027-01-01", "2027-01-01", "week", 2, "2027-01-15"),
        ("2027-01-01", "2027-01-03", "day", 2, "2027-01-05"),
    ],
)
def test_ends(anchor: str, after: str, interval: str, count: int, end: str) -> None:
    recurring = {"interval": interval, "interval_count": count}
    assert period_end(at(anchor), at(after), recurring) == at(end)


@given(
    st.integers(0, 4_000_000_000),
    st.integers(0, 400 * DAY_S),
    st.sampled_from(["day", "week", "month", "year"]),
    st.integers(1, 12),
)
def test_an_end_is_the_first_after_the_moment(
    anchor: int, later: int, interval: str, count: int
) -> None:
    recurring = {"interval": interval, "interval_count": count}
    end = period_end(anchor, anchor + later, recurring)
    assert end > anchor + later
    longest_s = {"day": 1, "week": 7, "month": 31, "year": 366}[interval] * count * DAY_S
    assert end - (anchor + later) <= longest_s
    assert period_end(anchor, end - 1, recurring) == end


@given(st.integers(0, 99_999_999), st.integers(1, 400 * DAY_S), st.data())
def test_a_share_is_within_half_a_cent(amount: int, length: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(0, length))
    part = share(amount, 1_000, 1_000 + length, 1_000 + gone)
    assert abs(part - Fraction(amount * (length - gone), length)) <= Fraction(1, 2)
    assert share(amount, 1_000, 1_000 + length, 1_000) == amount
    assert share(amount, 1_000, 1_000 + length, 1_000 + length) == 0
