"""Whose pictures step next: nobody waits long, nobody pays for a neighbour, batches are full."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.policy import Candidate, FairShare


def serve(shares: FairShare, candidates: list[Candidate], limit: int, seconds: float) -> list[int]:
    """One forward: the choice, settled."""
    chosen = shares.choose(candidates, lambda _: limit)
    rows: Counter[object] = Counter()
    for index in chosen:
        rows[candidates[index].job] += candidates[index].rows
    shares.settle(seconds, rows, {candidate.job for candidate in candidates})
    return chosen


def entered(*jobs: str) -> FairShare:
    shares = FairShare()
    for job in jobs:
        shares.enter(job)
    return shares


def test_what_can_share_a_forward_shares_it() -> None:
    same = [Candidate(job, "k", 2) for job in "abc"]
    assert entered(*"abc").choose(same, lambda _: 64) == [0, 1, 2]


def test_rows_stay_within_the_limit_and_one_picture_always_fits() -> None:
    same = [Candidate(job, "k", 2) for job in "abc"]
    assert entered(*"abc").choose(same, lambda _: 4) == [0, 1]
    assert entered(*"abc").choose(same, lambda _: 1) == [0]


def test_other_keys_take_turns() -> None:
    shares = entered("a", "b")
    pair = [Candidate("a", "k", 2), Candidate("b", "l", 2)]
    turns = [serve(shares, pair, 64, 1.0) for _ in range(6)]
    assert turns == [[0], [1]] * 3


def test_turns_are_counted_in_time_not_in_forwards() -> None:
    shares = entered("slow", "quick")
    pair = [Candidate("slow", "k", 2), Candidate("quick", "l", 2)]
    spent: Counter[int] = Counter()
    for _ in range(400):
        (index,) = shares.choose(pair, lambda _: 64)
        seconds = 3.0 if index == 0 else 1.0
        spent[index] += round(seconds)
        shares.settle(seconds, {pair[index].job: 2}, {"slow", "quick"})
    assert abs(spent[0] - spent[1]) <= 3


def test_many_pictures_of_one_job_do_not_crowd_out_another() -> None:
    crowd = [Candidate("many", "k", 2) for _ in range(16)] + [Candidate("one", "k", 2)]
    assert 16 in entered("many", "one").choose(crowd, lambda _: 4)


def test_a_newcomer_steps_in_the_next_forward() -> None:
    shares = entered(*"abcd")
    old = [Candidate(job, "k", 2) for job in "abcd"]
    for _ in range(7):
        serve(shares, old, 4, 1.0)
    shares.enter("new")
    newcomer = [*old, Candidate("new", "k", 2)]
    first = serve(shares, newcomer, 4, 1.0)
    second = serve(shares, newcomer, 4, 1.0)
    assert 4 in first + second


def test_a_job_that_shall_be_alone_is_alone() -> None:
    shares = entered("a", "b")
    pair = [Candidate("a", "k", 2, alone=True), Candidate("b", "k", 2)]
    turns = [serve(shares, pair, 64, 1.0) for _ in range(2)]
    assert sorted(turns) == [[0], [1]]


def test_a_job_that_comes_back_is_not_owed_for_its_absence() -> None:
    shares = entered("a", "b")
    pair = [Candidate("a", "k", 2), Candidate("b", "l", 2)]
    shares.leave("b")
    for _ in range(50):
        serve(shares, pair[:1], 64, 1.0)
    shares.enter("b")
    turns = [serve(shares, pair, 64, 1.0)[0] for _ in range(10)]
    assert Counter(turns) == {0: 5, 1: 5}


@given(
    keys=st.lists(st.integers(0, 3), min_size=2, max_size=8),
    rows=st.integers(1, 2),
    limit=st.integers(1, 8),
    seconds=st.lists(st.floats(0.01, 5.0), min_size=4, max_size=4),
)
def test_nobody_starves_and_nobody_gets_far_ahead(
    keys: list[int], rows: int, limit: int, seconds: list[float]
) -> None:
    """Between two steps of any job there pass at most two rounds of everybody else's."""
    shares = entered(*(str(index) for index in range(len(keys))))
    candidates = [Candidate(str(index), key, rows) for index, key in enumerate(keys)]
    waited = Counter[int]()
    for _ in range(40 * len(keys)):
        chosen = shares.choose(candidates, lambda _: limit)
        took = seconds[keys[chosen[0]]]
        stepped = {candidates[index].job: rows for index in chosen}
        shares.settle(took, stepped, {candidate.job for candidate in candidates})
        for index in range(len(keys)):
            waited[index] = 0 if index in chosen else waited[index] + 1
        dearest = max(seconds) / min(seconds)
        assert max(waited.values()) <= 2 * len(keys) * (1 + dearest)
    assert abs(sum(shares.owed_s(candidate.job) for candidate in candidates)) < 1e-6


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("kl"), st.integers(1, 2), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 9),
)
def test_a_choice_is_always_one_that_can_be_made(
    given_: list[tuple[str, str, int, bool]], limit: int
) -> None:
    candidates = [Candidate(*one) for one in given_]
    chosen = entered(*"abc").choose(candidates, lambda _: limit)
    picked = [candidates[index] for index in chosen]
    assert len(set(chosen)) == len(chosen) >= 1
    assert len({one.key for one in picked}) == 1
    if len(picked) > 1:
        assert sum(one.rows for one in picked) <= limit
        assert not any(one.alone for one in picked)
