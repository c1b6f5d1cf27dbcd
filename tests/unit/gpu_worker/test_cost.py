"""How many rows are worth taking at once, as forwards are measured."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.cost import CostCurve


def learn(curve: CostCurve, cost: Callable[[int], float], forwards: int = 200) -> int:
    """Forwards as full as the curve allows; the limit in the end, between two explorations."""
    for _ in range(forwards):
        rows = curve.limit
        curve.note(rows, cost(rows))
    return max(set(limits := [_next(curve, cost) for _ in range(31)]), key=limits.count)


def _next(curve: CostCurve, cost: Callable[[int], float]) -> int:
    rows = curve.limit
    curve.note(rows, cost(rows))
    return rows


def test_rows_that_cost_nothing_are_taken_up_to_the_most() -> None:
    assert learn(CostCurve(64), lambda _: 1.0) == 64


def test_where_rows_cost_their_own_time_two_are_as_good_as_many() -> None:
    curve = CostCurve(64)
    for rows in (2, 4, 8):
        curve.note(rows, 0.1 * rows)
    assert learn(curve, lambda rows: 0.1 * rows) <= 4


def test_the_knee_is_found() -> None:
    found = learn(CostCurve(64), lambda rows: max(0.1, 0.1 * rows / 8))
    assert 8 <= found <= 16


def test_the_first_forward_of_a_size_may_be_slow() -> None:
    curve = CostCurve(64)
    curve.note(2, 9.0)
    curve.note(2, 1.0)
    assert curve.seconds(2) == 1.0


def test_memory_halves_the_rows_and_is_asked_again_much_later() -> None:
    curve = CostCurve(64)
    curve.note(8, 1.0)
    curve.ran_out_of_memory(16)
    limits = [_next(curve, lambda _: 1.0) for _ in range(150)]
    assert set(limits) <= {4, 5, 6, 7, 8}
    assert max(limits) == 8
    for _ in range(300):
        _next(curve, lambda _: 1.0)
    assert 8 < curve.limit <= 11


def test_seconds_are_interpolated() -> None:
    curve = CostCurve(64)
    assert curve.seconds(4) is None
    curve.note(2, 1.0)
    curve.note(6, 2.0)
    assert curve.seconds(4) == 1.5
    assert curve.seconds(12) == 4.0
    assert curve.seconds(1) == 1.0


@given(
    st.integers(1, 64),
    st.lists(
        st.one_of(
            st.tuples(st.just("note"), st.integers(1, 64), st.floats(1e-4, 10)),
            st.tuples(st.just("memory"), st.integers(1, 64), st.just(0.0)),
        ),
        max_size=60,
    ),
)
def test_whatever_is_measured_one_row_is_allowed_and_never_too_many(
    most: int, events: list[tuple[str, int, float]]
) -> None:
    curve = CostCurve(most)
    for kind, rows, seconds in events:
        if kind == "note":
            curve.note(rows, seconds)
        else:
            curve.ran_out_of_memory(rows)
            assert curve.limit <= max(1, rows // 2)
        assert 1 <= curve.limit <= most
