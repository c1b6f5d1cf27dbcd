"""What the end of an attempt means, for every outcome and standing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_kit.ids import UserId, WorkerId, new_attempt_id, new_job_id
from scheduler.domain.backoff import Backoff
from scheduler.domain.job import OPEN_STATES, WORKER_LOST, Entitlements, JobError, JobState
from scheduler.domain.lease import COUNTED, Claim, Ended, Outcome, Report, Standing, judge

CLAIM = Claim(
    new_attempt_id(), new_job_id(), UserId("u"), WorkerId("w"), 1, datetime(2026, 1, 1, tzinfo=UTC)
)
ERROR = JobError("out_of_memory", "no room")
OUTCOMES = [outcome for outcome in Outcome if outcome is not Outcome.SUPERSEDED]


def verdict(
    outcome: Outcome,
    *,
    state: JobState = JobState.RUNNING,
    cancelled: bool = False,
    current: bool = True,
    failures: int = 0,
    error: JobError | None = None,
) -> tuple[JobState | None, JobError | None]:
    found = judge(
        Standing(state, cancelled, current, failures),
        Report(CLAIM, outcome, error=error),
        max_attempts=3,
    )
    return found.state, found.error


@pytest.mark.parametrize(
    ("state", "outcome"), list(product(sorted(set(JobState) - OPEN_STATES), OUTCOMES))
)
def test_a_job_that_has_ended_stays_as_it_is(state: JobState, outcome: Outcome) -> None:
    assert verdict(outcome, state=state) == (None, None)


@pytest.mark.parametrize("current", [True, False])
@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("state", sorted(OPEN_STATES))
def test_the_first_success_always_wins(state: JobState, *, cancelled: bool, current: bool) -> None:
    won = verdict(Outcome.SUCCEEDED, state=state, cancelled=cancelled, current=current)
    assert won == (JobState.SUCCEEDED, None)


@pytest.mark.parametrize("outcome", [one for one in OUTCOMES if one is not Outcome.SUCCEEDED])
def test_nothing_else_counts_from_a_superseded_attempt(outcome: Outcome) -> None:
    assert verdict(outcome, current=False, failures=2, error=ERROR) == (None, None)


@pytest.mark.parametrize("outcome", [one for one in OUTCOMES if one is not Outcome.SUCCEEDED])
def test_a_cancelled_job_is_not_tried_again(outcome: Outcome) -> None:
    assert verdict(outcome, cancelled=True, error=ERROR) == (JobState.CANCELLED, None)


def test_a_refused_request_fails_at_once() -> None:
    assert verdict(Outcome.REFUSED, error=ERROR) == (JobState.FAILED, ERROR)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNFIT, Outcome.LOST])
def test_the_last_try_that_counts_fails_the_job(outcome: Outcome) -> None:
    assert verdict(outcome, failures=1, error=ERROR) == (JobState.QUEUED, None)
    assert verdict(outcome, failures=2, error=ERROR) == (JobState.FAILED, ERROR)
    assert verdict(outcome, failures=2) == (JobState.FAILED, WORKER_LOST)


def test_only_a_failure_that_time_may_heal_is_tried_again_after_a_pause() -> None:
    pauses = {
        outcome: judge(
            Standing(JobState.RUNNING, cancel_requested=False, is_current=True, failures=0),
            Report(CLAIM, outcome),
            max_attempts=3,
        ).pause
        for outcome in OUTCOMES
    }
    assert [outcome for outcome, pause in pauses.items() if pause] == [Outcome.FAILED]


@given(failures=st.integers(1, 10_000), luck=st.floats(0, 1, exclude_max=True))
def test_pauses_double_up_to_their_cap_and_half_of_each_is_chance(
    failures: int, luck: float
) -> None:
    most_s = min(30.0, 2.0 ** min(failures - 1, 10))
    delay_s = Backoff(base_s=1, cap_s=30).delay_s(failures, luck)
    assert most_s / 2 <= delay_s <= most_s
    assert delay_s == pytest.approx(most_s * (0.5 + luck / 2))


@pytest.mark.parametrize(
    "outcome",
    [Outcome.HANDED_BACK, Outcome.UNDELIVERED, Outcome.FORGOTTEN, Outcome.STOPPED],
)
def test_what_is_nobodys_failure_never_ends_a_job(outcome: Outcome) -> None:
    assert verdict(outcome, failures=99) == (JobState.QUEUED, None)


@given(
    reports=st.lists(st.sampled_from(OUTCOMES), max_size=30),
    cancel_at=st.integers(0, 30),
    currents=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_a_job_ends_at_most_once(
    reports: list[Outcome], cancel_at: int, currents: list[bool]
) -> None:
    state, failures, ends = JobState.RUNNING, 0, 0
    for number, (outcome, current) in enumerate(zip(reports, currents, strict=False)):
        new, _ = verdict(
            outcome, state=state, cancelled=number >= cancel_at, current=current, failures=failures
        )
        if new is not None:
            ends += new.ended
            failures += outcome in COUNTED
            state = new
    assert ends == state.ended
    assert failures <= 3


def test_a_report_takes_the_workers_time_of_the_first_step_where_it_has_one() -> None:
    seen = datetime(2026, 2, 2, tzinfo=UTC)
    said = Ended(CLAIM.attempt_id, Outcome.SUCCEEDED, first_step_ms=250)
    assert said.of(CLAIM, seen).first_step_at == CLAIM.claimed_at + timedelta(milliseconds=250)
    silent = Ended(CLAIM.attempt_id, Outcome.STOPPED, steps_done=3)
    assert silent.of(CLAIM, seen) == Report(
        CLAIM, Outcome.STOPPED, steps_done=3, first_step_at=seen
    )


def test_the_open_limit_is_running_and_waiting_together() -> None:
    assert Entitlements(1, 0, 1, 3, 12, 600).max_open == 15
