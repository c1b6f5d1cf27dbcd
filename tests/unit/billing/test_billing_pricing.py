"""Prices: whole numbers that never lose a credit and never charge for what did not run."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.pricing import PriceTable, Work, charge, price
from easel_kit.ids import ModelKey

SHAPES = ModelKey("shapes-64")
TABLE = PriceTable(100, ((SHAPES, 10_000),))

works = st.builds(
    Work,
    model_key=st.sampled_from([SHAPES, ModelKey("other")]),
    width_px=st.integers(1, 65_536),
    height_px=st.integers(1, 65_536),
    steps=st.integers(1, 100_000),
    image_count=st.integers(1, 1000),
)


@pytest.mark.parametrize(
    ("work", "millicredits"),
    [
        (Work(SHAPES, 64, 64, 10, 1), 410),
        (Work(SHAPES, 64, 64, 10, 4), 1639),
        (Work(ModelKey("other"), 1024, 1024, 30, 1), 3146),
        (Work(ModelKey("other"), 1000, 1000, 1, 1), 100),
        (Work(ModelKey("other"), 8, 8, 1, 1), 1),
        # 64 x 64 in 10 steps, then 128 x 128 in 4
        (Work(SHAPES, 128, 128, 10, 1, 64 * 64 * 10 + 128 * 128 * 4), 1065),
        # half of the steps of a picture that begins with another
        (Work(SHAPES, 64, 64, 10, 1, 64 * 64 * 5), 205),
    ],
)
def test_prices_of_known_work(work: Work, millicredits: int) -> None:
    assert price(work, TABLE) == millicredits


@given(works)
def test_a_price_is_the_exact_one_rounded_up_to_at_least_1(work: Work) -> None:
    factor = TABLE.factor(work.model_key)
    exact = Fraction(work.width_px * work.height_px, 10**6) * work.steps * work.image_count * factor
    assert price(work, TABLE) >= 1
    assert exact <= price(work, TABLE) < exact + 1


@given(works, st.integers(0, 65_536**2 * 100_000 * 1000))
def test_the_price_follows_the_steps_that_the_caller_reckons(work: Work, reckoned: int) -> None:
    told = replace(work, reckoned_pixel_steps=reckoned)
    product = work.width_px * work.height_px * work.steps * work.image_count
    assert told.pixel_steps == (reckoned or product)
    exact = Fraction(told.pixel_steps * TABLE.factor(work.model_key), 10**6)
    assert exact <= price(told, TABLE) < exact + 1 or price(told, TABLE) == 1
    assert price(replace(work, reckoned_pixel_steps=product), TABLE) == price(work, TABLE)


@given(works, st.integers(1, 10**9))
def test_every_price_that_can_be_asked_for_fits_64_bits(work: Work, factor: int) -> None:
    largest = Work(work.model_key, 65_536, 65_536, 100_000, 1000)
    assert price(work, PriceTable(factor)) <= price(largest, PriceTable(10**6)) * 1000
    assert price(largest, PriceTable(10**6)) < 2**63


@given(st.integers(0, 10**12), st.integers(0, 10**5), st.integers(1, 10**5))
def test_a_charge_is_the_part_that_ran_rounded_down(amount: int, done: int, total: int) -> None:
    exact = Fraction(amount * min(done, total), total)
    assert exact - 1 < charge(amount, done, total) <= exact
    assert charge(amount, total, total) == amount
    assert charge(amount, done + 1, total) >= charge(amount, done, total)


@pytest.mark.parametrize(("done", "total"), [(0, 10), (0, 0), (5, 0), (-1, 10), (1, -1)])
def test_nothing_ran_costs_nothing(done: int, total: int) -> None:
    assert charge(1000, done, total) == 0
