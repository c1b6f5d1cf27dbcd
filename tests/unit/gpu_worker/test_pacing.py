"""Redialling and leaving."""

from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.domain.pacing import MAX_REDIAL_S, fits, redial_delay_s


def test_redialling_doubles_up_to_its_limit() -> None:
    delays = [redial_delay_s(failures, 1.0) for failures in range(1, 8)]
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert redial_delay_s(1, 0.0) == 0.025


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_redialling_never_stands_still_nor_waits_long(failures: int, jitter: float) -> None:
    assert 0 < redial_delay_s(failures, jitter) <= MAX_REDIAL_S


def test_work_fits_when_its_pace_says_so() -> None:
    assert fits(step=5, steps=10, elapsed_s=1.0, left_s=1.0)
    assert not fits(step=5, steps=10, elapsed_s=1.0, left_s=0.9)


def test_work_without_a_pace_may_try() -> None:
    assert fits(step=0, steps=10, elapsed_s=100.0, left_s=0.1)


def test_work_that_is_done_but_for_its_upload_fits() -> None:
    assert fits(step=10, steps=10, elapsed_s=100.0, left_s=0.0)
