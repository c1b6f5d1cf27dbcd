"""Ids are typed, checked where they come in, and sort by age."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_kit import ids
from easel_kit.errors import InvalidInput

KNOWN = "job_0190163d8694739b8f3a8d0e6c2f4b1a"


def test_ids_carry_their_prefix_and_sort_by_age() -> None:
    made = [ids.new_job_id() for _ in range(200)]
    assert all(re.fullmatch(r"job_[0-9a-f]{32}", one) for one in made)
    assert len(set(made)) == 200
    assert [ids.job_id(one) for one in made] == made
    # within one millisecond the order is not promised: compare the time part
    assert [one[4:16] for one in made] == sorted(one[4:16] for one in made)


@pytest.mark.parametrize(
    "text",
    ["", "job_", "job_123", "img_" + "0" * 32, "job_" + "g" * 32, KNOWN.upper(),
     "job_" + "0" * 32, KNOWN + "\n", " " + KNOWN],
)  # fmt: skip
def test_what_is_no_job_id_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ids.job_id(text, "id")
    assert caught.value.field == "id"


def test_each_kind_has_its_own_prefix() -> None:
    assert ids.attempt_id(ids.new_attempt_id())
    assert ids.image_id(ids.new_image_id())
    with pytest.raises(InvalidInput):
        ids.attempt_id(ids.new_image_id())
    with pytest.raises(InvalidInput):
        ids.image_id(ids.new_job_id())


@given(st.text(max_size=200))
def test_a_user_id_is_safe_in_a_path_or_refused(text: str) -> None:
    try:
        accepted = ids.user_id(text)
    except InvalidInput:
        return
    assert 1 <= len(accepted) <= 128
    assert not set(accepted) & set("/\\ \n\0%?#")
    assert accepted not in {".", ".."}


@pytest.mark.parametrize("text", ["", "-a", "a b", "a/b", "a" * 65, "é", "a\n"])
def test_what_is_no_batch_id_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ids.batch_id(text, "batch_ids.3")
    assert refused.value.field == "batch_ids.3"
    assert ids.batch_id("0d9f8a5e-3f54-4b8b:run_1.x") == "0d9f8a5e-3f54-4b8b:run_1.x"
