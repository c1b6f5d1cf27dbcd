"""What stays in memory and who waits: sizes in bytes, loads that the test ends by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from easel_kit.errors import DependencyDown, DomainError, InvalidState
from easel_kit.ids import ModelKey
from gpu_worker.engine.cache import ModelCache, Waiter

A, B, C, D = (ModelKey(key) for key in "abcd")


@dataclass
class Thing:
    """Something of a size."""

    size_bytes: int


@dataclass
class House:
    """A cache, the loads that it started and what its waiters heard."""

    capacity: int = 10
    reserve: int = 0
    sizes: dict[ModelKey, int] = field(default_factory=lambda: {A: 4, B: 4, C: 4, D: 9})
    started: list[ModelKey] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    errors: list[DomainError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = ModelCache[Thing](
            self.capacity,
            self.started.append,
            lambda: None,
            estimate=lambda key: self.sizes.get(key, 0),
            reserve_bytes=self.reserve,
        )

    def waiter(self, name: str, *pinned: ModelKey) -> Waiter[Thing]:
        def ready(_: Thing) -> None:
            self.heard.append(name)
            for key in pinned:
                self.cache.pin(key)

        def failed(error: DomainError) -> None:
            self.heard.append(f"{name} failed")
            self.errors.append(error)

        return Waiter(ready, failed)

    def want(self, key: ModelKey, name: str = "", *, pin: bool = False) -> Waiter[Thing]:
        waiter = self.waiter(name or key, *([key] if pin else []))
        self.cache.want(key, waiter)
        return waiter

    def arrive(self, key: ModelKey, size: int | None = None) -> None:
        self.cache.arrived(key, Thing(self.sizes[key] if size is None else size))

    def hold(self, *keys: ModelKey) -> None:
        """Loads and pins."""
        for key in keys:
            self.want(key, pin=True)
            self.arrive(key)
        self.heard.clear()


def test_many_share_one_load() -> None:
    house = House()
    for name in "123":
        house.want(A, name)
    assert (house.started, house.heard) == ([A], [])
    house.arrive(A)
    house.want(A, "4")
    assert (house.started, house.heard) == ([A], ["1", "2", "3", "4"])


def test_room_is_made_before_a_load_starts() -> None:
    house = House()
    for key in (A, B):
        house.want(key)
        house.arrive(key)
    house.want(A)
    house.want(C)
    assert house.cache.keys == {A}  # b was used longest ago, and is gone before c is here
    assert house.cache.loading == {C}


def test_the_reserve_is_not_for_models() -> None:
    house = House(capacity=10, reserve=3)
    assert house.cache.capacity_bytes == 7
    house.want(D)
    assert "takes" in str(house.errors[0])
    assert not house.started


def test_what_can_never_fit_fails_at_once_and_says_how_much_it_takes() -> None:
    house = House(capacity=10 * 2**20, sizes={A: 11 * 2**20})
    house.want(A)
    assert isinstance(house.errors[0], InvalidState)
    assert str(house.errors[0]) == "a takes 11 MiB of memory, and models may hold 10 MiB"


def test_a_load_waits_until_something_is_unpinned() -> None:
    house = House()
    house.hold(A, B)
    house.want(C)
    assert (house.started[2:], house.heard) == ([], [])
    house.cache.unpin(B)
    assert house.started[2:] == [C]
    assert house.cache.keys == {A}
    house.arrive(C)
    assert house.heard == [C]


def test_loads_wait_in_order_of_arrival() -> None:
    house = House()
    house.hold(A, B)
    house.want(D)  # needs both places
    house.want(C)  # would fit into one
    house.cache.unpin(A)
    assert house.started[2:] == []
    house.cache.unpin(B)
    assert house.started[2:] == [D]
    house.arrive(D)
    assert house.started[2:] == [D, C]


def test_who_waits_for_room_is_passed_a_bounded_number_of_times() -> None:
    house = House()
    house.hold(A, B)
    house.want(C)
    for _ in range(100):
        house.want(A, pin=True)
    passed = house.heard.count(A)
    assert 1 < passed < 100
    for _ in range(passed + 1):
        house.cache.unpin(A)
    house.arrive(C)
    assert house.heard[passed] == C
    house.arrive(A)
    assert house.heard.count(A) == 100


def test_what_is_wanted_together_is_in_memory_together() -> None:
    house = House(sizes={A: 4, B: 4, C: 4})
    heard: list[Mapping[ModelKey, Thing]] = []
    house.want(C)
    house.arrive(C)
    house.cache.want_all((A, B, A), Waiter(heard.append, house.errors.append))
    assert house.started == [C, A, B]
    house.arrive(B)
    assert heard == []
    house.want(C, "later")  # must not push b out while its owner waits for a
    house.arrive(A)
    assert [set(found) for found in heard] == [{A, B}]


def test_too_much_together_is_refused() -> None:
    house = House()
    house.cache.want_all((A, D), Waiter(lambda _: None, house.errors.append))
    assert "a with d takes" in str(house.errors[0])


def test_a_value_larger_than_estimated_is_loaded_again_once_there_is_room() -> None:
    house = House()
    house.hold(A)
    house.want(B, pin=True)
    house.arrive(B, 8)
    assert house.heard == []
    assert house.cache.keys == {A}
    house.cache.unpin(A)
    assert house.started == [A, B, B]
    assert house.cache.keys == set()  # 8 and 4 are more than 10
    house.arrive(B, 8)
    assert house.heard == [B]


def test_a_value_that_turns_out_too_large_is_refused_and_not_loaded_again() -> None:
    house = House()
    house.want(A)
    house.arrive(A, 11)
    assert house.heard == ["a failed"]
    house.want(A)
    assert house.started == [A]
    house.sizes[A] = 5  # its files are others by now
    house.want(A)
    assert house.started == [A, A]


def test_a_failed_load_fails_all_who_need_it_and_is_forgotten() -> None:
    house = House()
    house.want(A, "1")
    house.cache.want_all((A, B), Waiter(lambda _: None, house.errors.append))
    house.cache.load_failed(A, DependencyDown("away"))
    assert house.heard == ["1 failed"]
    assert len(house.errors) == 2
    house.want(A)
    assert house.started == [A, B, A]


def test_the_end_fails_all_who_wait() -> None:
    house = House()
    house.hold(A, B)
    house.want(C)
    house.cache.abandon_loads(InvalidState("the end"))
    assert house.heard == ["c failed"]


def test_who_withdraws_is_not_called_and_holds_nobody_up() -> None:
    house = House()
    house.hold(A, B)
    gone = house.want(D)
    house.want(C)
    house.cache.unpin(A)
    house.cache.withdraw(gone)
    house.cache.withdraw(gone)
    assert house.started[2:] == [C]
    house.arrive(C)
    assert house.heard == [C]


def test_idle_values_go_when_memory_runs_out() -> None:
    house = House()
    house.hold(A)
    house.want(B)
    house.arrive(B)
    assert house.cache.evict_idle() == 4
    assert house.cache.keys == {A}
    assert house.cache.evict_idle() == 0


def test_a_pinned_value_is_not_dropped() -> None:
    house = House()
    house.hold(A)
    with pytest.raises(InvalidState, match="in use"):
        house.cache.drop(A)
    house.cache.unpin(A)
    house.cache.drop(A)
    house.cache.drop(A)
    assert house.cache.keys == set()


# --- any order of events ----------------------------------------------------------------------

CAPACITY, RESERVE = 12, 2
KEYS = st.sampled_from([ModelKey(key) for key in "abcde"])


@settings(max_examples=60, stateful_step_count=40, deadline=None)
class AnyOrder(RuleBasedStateMachine):
    """Wants, arrivals, failures, pins and evictions as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.estimates: dict[ModelKey, int] = {}
        self.loading: set[ModelKey] = set()
        self.pins: Counter[ModelKey] = Counter()
        self.waiting: dict[int, Waiter[Mapping[ModelKey, Thing]]] = {}
        self.asked = 0
        self.cache = ModelCache[Thing](
            CAPACITY,
            self.start,
            lambda: None,
            estimate=lambda key: self.estimates.get(key, 3),
            reserve_bytes=RESERVE,
        )

    def start(self, key: ModelKey) -> None:
        assert key not in self.loading, "two loads of one model"
        assert key not in self.cache.keys, "a load of what is here"
        self.loading.add(key)

    @rule(keys=st.lists(KEYS, min_size=1, max_size=3), pin=st.booleans(), again=st.booleans())
    def want(self, keys: list[ModelKey], *, pin: bool, again: bool) -> None:
        number = self.asked
        self.asked += 1

        def ready(found: Mapping[ModelKey, Thing]) -> None:
            del self.waiting[number]  # a second call would raise
            assert set(found) == set(keys)
            assert set(keys) <= self.cache.keys
            if pin:
                for key in found:
                    self.cache.pin(key)
                    self.pins[key] += 1
            if again:
                self.want([keys[0]], pin=False, again=False)

        def failed(_: DomainError) -> None:
            del self.waiting[number]

        waiter = Waiter(ready, failed)
        self.waiting[number] = waiter
        self.cache.want_all(keys, waiter)

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), size=st.integers(0, 13))
    def arrive(self, data: st.DataObject, size: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.loading)))
        self.loading.discard(key)
        self.cache.arrived(key, Thing(size))

    @precondition(lambda self: self.loading)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.loading)))
        self.loading.discard(key)
        self.cache.load_failed(key, DependencyDown("away"))

    @precondition(lambda self: +self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(+self.pins)))
        self.pins[key] -= 1
        self.cache.unpin(key)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        self.cache.withdraw(self.waiting.pop(number))

    @rule(key=KEYS, size=st.integers(0, 13))
    def change_files(self, key: ModelKey, size: int) -> None:
        self.estimates[key] = size

    @rule(key=KEYS)
    def drop(self, key: ModelKey) -> None:
        if self.pins[key]:
            with pytest.raises(InvalidState):
                self.cache.drop(key)
        else:
            self.cache.drop(key)

    @rule()
    def run_out_of_memory(self) -> None:
        self.cache.evict_idle()

    @invariant()
    def bytes_stay_within_the_capacity(self) -> None:
        assert self.cache.used_bytes <= CAPACITY - RESERVE

    @invariant()
    def what_is_pinned_is_here(self) -> None:
        assert set(+self.pins) <= self.cache.keys

    @invariant()
    def loads_are_those_that_were_started(self) -> None:
        assert self.cache.loading == self.loading

    def teardown(self) -> None:
        """Once everything is given back and every load has ended, nobody waits any more."""
        for _ in range(4 * (self.asked + 1)):
            for key in list(self.pins.elements()):
                self.pins[key] -= 1
                self.cache.unpin(key)
            for key in sorted(self.loading):
                self.loading.discard(key)
                self.cache.arrived(key, Thing(3))
        assert not self.waiting


TestAnyOrder = AnyOrder.TestCase
