"""Periods, lots, transfers, and what a job's state means for its hold."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain import ledger
from billing.domain.accounts import (
    Account,
    AccountId,
    Balance,
    Period,
    PlanSource,
    months_after,
    period_at,
)
from billing.domain.feed import (
    Applied,
    Cursor,
    JobEvent,
    Outcome,
    applied,
    contradiction,
    is_settled_otherwise,
)
from billing.domain.holds import (
    Extension,
    Hold,
    HoldState,
    JobReport,
    JobStatus,
    Settled,
    Settlement,
    effect_of,
)
from billing.domain.ledger import Book, Kind, Part, take
from billing.domain.pricing import Work
from billing.domain.purchases import Clawback, Division, Paid, divide
from easel_kit.errors import InvalidState
from easel_kit.ids import HoldId, JobId, ModelKey, UserId

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ACCOUNT = AccountId("acc_1")
JOB = JobId("job_1")
WORK = Work(ModelKey("shapes-64"), 64, 64, 10, 1)

moments = st.datetimes(
    datetime(2020, 1, 1),  # noqa: DTZ001 (Hypothesis adds the zone)
    datetime(2040, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def hold(state: HoldState = HoldState.OPEN, captured: int = 0, **changes: object) -> Hold:
    fields: dict[str, object] = {
        "id": HoldId("hold_1"),
        "job_id": JOB,
        "account_id": ACCOUNT,
        "user_id": UserId("alice"),
        "work": WORK,
        "state": state,
        "millicredits": 410,
        "captured": captured,
        "is_barred": False,
        "traceparent": "",
        "expires_at": NOW,
    }
    return Hold(**(fields | changes))  # type: ignore[arg-type]


# --- periods


@pytest.mark.parametrize(
    ("months", "day"),
    [(0, (2026, 1, 31)), (1, (2026, 2, 28)), (2, (2026, 3, 31)), (11, (2026, 12, 31)),
     (12, (2027, 1, 31)), (25, (2028, 2, 29)), (-1, (2025, 12, 31))],
)  # fmt: skip
def test_months_keep_their_day_where_there_is_one(months: int, day: tuple[int, int, int]) -> None:
    assert months_after(NOW, months) == datetime(*day, 12, tzinfo=UTC)


@given(moments, st.integers(0, 5000))
def test_periods_tile_time(anchor: datetime, days: int) -> None:
    now = anchor + timedelta(days=days)
    period = period_at(anchor, now)
    assert period.start <= now < period.end
    assert period_at(anchor, period.end).start == period.end
    assert period_at(anchor, period.end - timedelta(microseconds=1)) == period
    assert timedelta(days=28) <= period.end - period.start <= timedelta(days=31)


def test_a_clock_that_runs_back_finds_the_first_period() -> None:
    assert period_at(NOW, NOW - timedelta(days=70)) == period_at(NOW, NOW)


@given(moments)
def test_periods_of_an_account_have_names_of_their_own(anchor: datetime) -> None:
    names = [period_at(anchor, months_after(anchor, month)).name for month in range(30)]
    assert len(set(names)) == 30


@pytest.mark.parametrize(
    ("now", "expired", "source", "due"),
    [
        (NOW, False, PlanSource.DEFAULT, False),
        (NOW, True, PlanSource.DEFAULT, True),
        (NOW + timedelta(days=28), False, PlanSource.DEFAULT, True),
        (NOW + timedelta(days=28), False, PlanSource.GRANTED, True),
        (NOW + timedelta(days=28), False, PlanSource.SUBSCRIPTION, False),
        (NOW, True, PlanSource.SUBSCRIPTION, True),
    ],
)
def test_an_account_is_due_when_its_period_or_some_credits_are_over(
    now: datetime,
    expired: bool,  # noqa: FBT001
    source: PlanSource,
    due: bool,  # noqa: FBT001
) -> None:
    account = Account(
        ACCOUNT,
        UserId("alice"),
        NOW,
        None,  # type: ignore[arg-type]
        1,
        period_at(NOW, NOW),
        Balance(0, 0),
        expired,
        source,
        NOW,
    )
    assert account.is_due(now) is due


# --- lots


parts_of_lots = st.lists(st.integers(0, 1000)).map(
    lambda amounts: [Part(f"lot_{index}", amount) for index, amount in enumerate(amounts)]
)


@given(parts_of_lots, st.data())
def test_taking_empties_the_first_lots_first(parts: list[Part], data: st.DataObject) -> None:
    total = sum(part.millicredits for part in parts)
    amount = data.draw(st.integers(0, total))
    taken = take(parts, amount)
    assert sum(part.millicredits for part in taken) == amount
    assert all(part.millicredits > 0 for part in taken)
    filled = [part for part in parts if part.millicredits]
    assert list(taken[:-1]) == filled[: max(len(taken) - 1, 0)]
    if taken:
        last = filled[len(taken) - 1]
        assert taken[-1].lot_id == last.lot_id
        assert taken[-1].millicredits <= last.millicredits


@given(parts_of_lots, st.integers(1, 1000))
def test_lots_that_hold_too_little_are_noticed(parts: list[Part], more: int) -> None:
    with pytest.raises(InvalidState):
        take(parts, sum(part.millicredits for part in parts) + more)


# --- transfers


@given(st.integers(1, 10**12), st.data())
def test_every_transfer_sums_to_zero_without_empty_entries(
    amount: int, data: st.DataObject
) -> None:
    captured = data.draw(st.integers(0, amount))
    period = Period(NOW, NOW + timedelta(days=31))
    transfers = [
        ledger.grant(ACCOUNT, period, "Free", "2026-01-31/free", amount),
        ledger.hold(ACCOUNT, JOB, WORK, amount),
        ledger.settle(ACCOUNT, JOB, amount, captured, "finished"),
        ledger.expire(ACCOUNT, "lot_1/0", amount, NOW),
        ledger.purchase(ACCOUNT, "checkout/cs_1", amount, "A pack"),
        ledger.clawback(ACCOUNT, "re_1", captured, amount - captured, "Refunded"),
        ledger.give_back(ACCOUNT, "dp_1", amount),
    ]
    for transfer in transfers:
        assert sum(entry.millicredits for entry in transfer.entries) == 0
        assert all(entry.millicredits for entry in transfer.entries)
    assert [transfer.change(Book.AVAILABLE) for transfer in transfers] == [
        amount,
        -amount,
        amount - captured,
        -amount,
        amount,
        -captured,
        amount,
    ]
    assert [transfer.change(Book.HELD) for transfer in transfers[:4]] == [0, amount, -amount, 0]
    assert transfers[5].change(Book.DEBT) == captured - amount


@pytest.mark.parametrize(
    ("captured", "kind", "text"),
    [
        (0, Kind.RELEASE, "Nothing charged: why"),
        (410, Kind.CAPTURE, "Charged 0.410 credits: why"),
        (123, Kind.CAPTURE, "Charged 0.123 credits of 0.410 credits: why"),
    ],
)
def test_the_end_of_a_hold_says_what_was_charged(captured: int, kind: Kind, text: str) -> None:
    transfer = ledger.settle(ACCOUNT, JOB, 410, captured, "why")
    assert (transfer.kind, transfer.description) == (kind, text)


def test_a_hold_of_several_pictures_says_so() -> None:
    work = Work(ModelKey("m"), 512, 256, 20, 3)
    assert ledger.hold(ACCOUNT, JOB, work, 5).description == (
        "Reserved for 3 pictures of 512 x 256, 20 steps, m"
    )


# --- what a job's state means


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
def test_a_live_job_extends(status: JobStatus) -> None:
    assert effect_of(JobReport(status)) == Extension()


@pytest.mark.parametrize(
    ("report", "charged", "bars"),
    [
        (JobReport(JobStatus.SUCCEEDED), 410, False),
        (JobReport(JobStatus.FAILED, 9, 10), 0, False),
        (JobReport(JobStatus.CANCELLED, 5, 10), 205, False),
        (JobReport(JobStatus.CANCELLED, 99, 10), 410, False),
        (JobReport(JobStatus.CANCELLED, 0, 10), 0, False),
        (JobReport(JobStatus.CANCELLED, 5, 0), 0, False),
        (JobReport(JobStatus.UNKNOWN), 0, True),
    ],
)
def test_an_ended_job_settles(report: JobReport, charged: int, bars: bool) -> None:  # noqa: FBT001
    effect = effect_of(report)
    assert isinstance(effect, Settlement)
    assert effect.charge(410) == charged
    assert effect.is_barring is bars


def test_cursors_order_by_generation_first() -> None:
    assert Cursor() < Cursor(1, 9, 9) < Cursor(2, 1, 1) < Cursor(2, 1, 2) < Cursor(2, 2, 1)


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        (None, "hold_missing"),
        (hold(HoldState.RELEASED, account_id=None, user_id=None), "hold_missing"),
        (hold(user_id=UserId("bob")), "hold_of_other_user"),
        (hold(user_id=None), None),  # an erased account
        (hold(), None),
    ],
)
def test_an_event_must_mean_its_hold(known: Hold | None, kind: str | None) -> None:
    event = JobEvent(Cursor(1, 1, 1), JOB, UserId("alice"), JobReport(JobStatus.SUCCEEDED))
    assert contradiction(event, known) == kind


@pytest.mark.parametrize(
    ("settled", "outcome"),
    [
        (None, Outcome.UNCHANGED),
        (Settled(hold(HoldState.CAPTURED, 410), is_new=False), Outcome.UNCHANGED),
        (Settled(hold(HoldState.CAPTURED, 410), is_new=True), Outcome.CAPTURED),
        (Settled(hold(HoldState.RELEASED), is_new=True), Outcome.RELEASED),
    ],
)
def test_a_settlement_is_reported_once(settled: Settled | None, outcome: Outcome) -> None:
    assert applied(settled) == Applied(outcome, settled.hold if settled else None)


@pytest.mark.parametrize(
    ("known", "otherwise"),
    [
        (hold(), False),
        (hold(HoldState.CAPTURED, 410), False),
        (hold(HoldState.CAPTURED, 205), True),
        (hold(HoldState.RELEASED), True),
    ],
)
def test_a_success_on_a_hold_that_ended_with_another_charge(
    known: Hold,
    otherwise: bool,  # noqa: FBT001
) -> None:
    assert is_settled_otherwise(known, Settlement(1, 1, "finished")) is otherwise


# --- clawbacks


def clawback(amount: int, *, may_owe: bool = True) -> Clawback:
    return Clawback("re_1", "pi_1", amount, "Refunded", may_owe=may_owe)


@pytest.mark.parametrize(
    ("amount", "paid", "available", "division"),
    [
        # its own lots first, then nothing for what expired, then other lots, then debt
        (100, Paid(100, 0, 100, 0), 100, Division(0, 100, 0, 0)),
        (100, Paid(100, 0, 40, 25), 50, Division(25, 40, 10, 25)),
        (100, Paid(100, 0, 0, 0), 0, Division(0, 0, 0, 100)),
        (60, Paid(100, 0, 30, 100), 500, Division(30, 30, 0, 0)),
        # never more than was bought less what was taken back before
        (100, Paid(100, 70, 500, 0), 500, Division(0, 30, 0, 0)),
        (100, Paid(100, 100, 500, 0), 500, Division(0, 0, 0, 0)),
        (100, Paid(100, 130, 500, 0), 500, Division(0, 0, 0, 0)),
    ],
)
def test_a_clawback_is_divided(amount: int, paid: Paid, available: int, division: Division) -> None:
    assert divide(clawback(amount), paid, available) == division
    assert division.taken == division.own + division.others


def test_time_given_back_takes_from_its_own_lots_alone() -> None:
    small = clawback(100, may_owe=False)
    assert divide(small, Paid(100, 0, 40, 25), 50) == Division(0, 40, 0, 0)


def test_a_clawback_says_what_became_debt() -> None:
    assert ledger.clawback(ACCOUNT, "re_1", 5, 0, "Refunded").description == "Refunded"
    assert ledger.clawback(ACCOUNT, "re_1", 5, 1500, "Refunded").description == (
        "Refunded; 1.500 credits of it spent already, and owed"
    )
