"""The CSV of a statement."""

import csv
import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.ledger import Kind, Line, decimal_credits
from billing.domain.statement import Excerpt, beginning, end, middle, month

NOW = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


def line(description: str = "", reference: str = "r", change: int = -1) -> Line:
    return Line("trf_1", 1, Kind.HOLD, reference, description, change, 5, NOW)


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def test_a_month_is_a_calendar_month() -> None:
    assert month(2026, 12).end == datetime(2027, 1, 1, tzinfo=UTC)
    assert month(2028, 2).start == datetime(2028, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_what_a_spreadsheet_would_run_is_text(start: str) -> None:
    text = f'{start}HYPERLINK("http://x","y")'
    (row,) = read(middle([line(text, text)]))
    assert row[2:4] == [f"'{text}"] * 2
    # numbers stay numbers
    assert row[4:] == ["-0.001", "0.005"]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_text_is_one_field(text: str) -> None:
    (row,) = read(middle([line(text)]))
    assert row[3].removeprefix("'") == text.removeprefix("'")
    assert len(row) == 6


def test_lines_end_as_rfc_4180_says_and_quotes_are_doubled() -> None:
    assert middle([line('a "b", c')]) == (
        b'2026-02-03T04:05:06Z,hold,r,"a ""b"", c",-0.001,0.005\r\n'
    )


def test_balances_stand_at_both_ends() -> None:
    excerpt = Excerpt(after=3, up_to=9, opening=1_000, closing=-5)
    february = month(2026, 2)
    assert read(beginning(february, excerpt)) == [
        ["time", "kind", "reference", "description", "credits", "balance"],
        ["2026-02-01T00:00:00Z", "opening", "", "", "", "1.000"],
    ]
    assert read(end(february, excerpt, NOW))[0][0] == "2026-02-03T04:05:06Z"
    later = datetime(2026, 4, 1, tzinfo=UTC)
    assert read(end(february, excerpt, later)) == [
        ["2026-03-01T00:00:00Z", "closing", "", "", "", "-0.005"]
    ]


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0.000"), (-1, "-0.001"), (1_234_567, "1234.567"), (-1000, "-1.000")],
)
def test_credits_have_three_places(amount: int, text: str) -> None:
    assert decimal_credits(amount) == text
