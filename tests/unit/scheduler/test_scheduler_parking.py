"""Who is set aside for whom, when it goes on, and for how long at most."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_kit.ids import AttemptId, JobId, ModelKey, UserId, WorkerId, new_attempt_id
from scheduler.domain.parking import Parking, Seat, Seats, SeatState
from scheduler.domain.policy import FairQueue, Share, Waiting
from scheduler.domain.stream import Acknowledged, Assign, Park, Resume, Welcome
from tests.fakes.scheduler_house import House, Stream

M = ModelKey("m")
FREE, PRO, PAID = (0, 1), (10, 4), (100, 16)
RULES = Parking(max_s=60, max_times=2)


class Lane:
    """A queue and its workers, by hand; time is in seconds."""

    def __init__(self, *slots: int) -> None:
        self.queue = FairQueue()
        self.seats = Seats(self.queue, RULES)
        self.jobs = 0
        for number, count in enumerate(slots):
            host = self.seats.host(WorkerId(f"w{number}"))
            host.models, host.slots, host.can_park = frozenset({M}), count, True

    def submit(self, tier: tuple[int, int], cost: int = 100, *, user: str = "") -> JobId:
        self.jobs += 1
        job_id = JobId(f"job_{self.jobs}")
        user_id = UserId(user or f"user {tier[0]}")
        self.queue.admit(Waiting(job_id, user_id, M, cost, self.jobs), Share(1, *tier, 99))
        return job_id

    def claim(self, worker: str = "w0", *, at_s: int = 0) -> Seat:
        job = self.queue.claim([M])
        assert job is not None
        seat = Seat(
            AttemptId(f"att_{job.job_id}"),
            job.job_id,
            self.queue.priority(job.user_id),
            at_s * 1000,
        )
        self.seats.host(WorkerId(worker)).seats[seat.attempt_id] = seat
        return seat

    def named(self) -> list[AttemptId]:
        return [attempt_id for _, attempt_id in self.seats.preempt()]

    def finish(self, seat: Seat) -> None:
        self.seats.end(seat.attempt_id)
        self.queue.remove(seat.job_id, took_ms=0)


def test_the_lowest_then_least_parked_then_last_started_gives_way() -> None:
    lane = Lane(4)
    for tier in (PRO, FREE, FREE, FREE):
        lane.submit(tier)
    seats = [lane.claim(at_s=at_s) for at_s in range(4)]
    free = [seat for seat in seats if seat.priority == 0]
    free[-1].parked_ms = 1
    order = [free[1], free[0], free[2]]
    for seat in order:
        lane.submit(PAID)
        assert lane.named() == [seat.attempt_id]
        lane.seats.is_parked(seat, 0)
        lane.claim()


def test_one_gives_way_for_a_job_at_a_time() -> None:
    lane = Lane(2)
    for _ in range(2):
        lane.submit(FREE)
        lane.claim()
    lane.submit(PAID)
    (first,) = lane.named()
    assert lane.named() == []
    lane.seats.end(first)  # it ended before it was parked
    assert len(lane.named()) == 1


def test_nobody_gives_way_to_an_equal_or_to_one_whose_turn_is_later() -> None:
    lane = Lane(1)
    lane.submit(PRO, cost=40)
    lane.claim()
    lane.submit(PRO, cost=40, user="another")
    assert lane.named() == []
    lane = Lane(3)
    lane.submit(FREE, cost=1)
    free = lane.claim()
    lane.submit(PAID, cost=4000)
    lane.finish(lane.claim("w0"))
    lane.submit(PAID, cost=4000)
    assert lane.named() == []  # the paid tier is far ahead of its share
    assert free.state is SeatState.RUNNING


@pytest.mark.parametrize("reason", ["idle", "cannot", "full", "often", "elsewhere"])
def test_nobody_gives_way_in_vain(reason: str) -> None:
    lane = Lane(2, 1)
    host, other = lane.seats.host(WorkerId("w0")), lane.seats.host(WorkerId("w1"))
    lane.submit(FREE)
    seat = lane.claim()
    lane.submit(PAID)
    if reason == "idle":
        other.idle = True
    elif reason == "cannot":
        host.can_park = False
    elif reason == "full":
        host.slots = 0
    elif reason == "often":
        seat.parks = 2
    else:
        host.models = frozenset({ModelKey("another")})
    assert lane.named() == []


def test_workers_with_other_models_each_give_way_for_their_own_next_job() -> None:
    lane = Lane(1, 1)
    lane.seats.host(WorkerId("w1")).models = frozenset({M, ModelKey("another")})
    for worker in ("w0", "w1"):
        lane.submit(FREE)
        lane.claim(worker)
    lane.submit(PAID)
    assert len(lane.named()) == 1


def test_a_parked_attempt_goes_on_by_its_tiers_turn() -> None:
    lane = Lane(1)
    lane.submit(FREE)
    seat = lane.claim()
    lane.submit(PAID)
    assert lane.seats.resume_next(WorkerId("w0"), [M], 0) is None  # nothing is parked
    lane.named()
    lane.seats.is_running(seat, 0)  # said before it was told
    assert (seat.state, seat.parks) == (SeatState.PARKING, 0)
    lane.seats.is_parked(seat, 0)
    lane.seats.is_parked(seat, 9_000)  # said again
    served = 0
    while lane.seats.resume_next(WorkerId("w0"), [M], 30_000) is None:
        lane.finish(lane.claim())
        lane.submit(PAID)
        served += 1
    assert served == 17  # a full share of the paid tier, and the credit of its return
    assert (seat.state, seat.parks, seat.parked_ms) == (SeatState.RESUMING, 1, 30_000)
    lane.seats.is_parked(seat, 31_000)  # crossed with the order
    assert (seat.state, seat.parks) == (SeatState.RESUMING, 1)
    lane.seats.is_running(seat, 31_000)
    assert (seat.state, seat.parked_ms) == (SeatState.RUNNING, 30_000)


def test_what_was_parked_first_goes_on_first() -> None:
    lane = Lane(2)
    seats = []
    for at_s in (2, 1):
        lane.submit(FREE)
        seats.append(lane.claim())
        lane.seats.is_parked(seats[-1], at_s * 1000)
    order = [lane.seats.resume_next(WorkerId("w0"), [M], 3_000) for _ in range(3)]
    assert order == [seats[1].attempt_id, seats[0].attempt_id, None]
    lane.seats.is_parked(seats[0], 4_000)
    assert lane.seats.resume_overdue(70_000) == []


def test_a_parked_attempt_goes_on_after_its_time() -> None:
    lane = Lane(1)
    lane.submit(FREE)
    seat = lane.claim()
    lane.seats.is_parked(seat, 1_000)
    assert lane.seats.resume_overdue(60_999) == []
    assert lane.seats.resume_overdue(61_000) == [(WorkerId("w0"), seat.attempt_id)]
    assert (seat.state, seat.parked_ms) == (SeatState.RESUMING, 60_000)


def test_a_worker_that_says_it_goes_on_does() -> None:
    lane = Lane(1)
    lane.submit(FREE)
    seat = lane.claim()
    lane.seats.is_parked(seat, 1_000)
    lane.seats.is_running(seat, 3_000)
    assert (seat.state, seat.parked_ms) == (SeatState.RUNNING, 2_000)


def test_a_worker_that_left_gives_way_for_nobody() -> None:
    lane = Lane(1)
    lane.submit(FREE)
    seat = lane.claim()
    lane.seats.leave(WorkerId("w0"))
    lane.submit(PAID)
    assert lane.named() == []
    assert lane.seats.seat(seat.attempt_id) is seat
    assert lane.seats.seat(new_attempt_id()) is None


class Busy(Lane):
    """A lane with one worker, where anything may happen and a pass is made each second."""

    W = WorkerId("w0")

    def __init__(self) -> None:
        super().__init__(2)
        self.now_s = 0
        self.lent: list[Seat] = []

    @property
    def held(self) -> list[Seat]:
        return list(self.seats.host(self.W).seats.values())

    def work(self, _: int) -> None:
        has_work = self.seats.host(self.W).room > 0 and self.queue.waiting()
        if has_work and self.seats.resume_next(self.W, [M], self.now_s * 1000) is None:
            self.lent.append(self.claim(at_s=self.now_s))

    def answer(self, _: int) -> None:
        for seat in self.held:
            if seat.state is SeatState.PARKING:
                self.seats.is_parked(seat, self.now_s * 1000)
            elif seat.state is SeatState.RESUMING:
                self.seats.is_running(seat, self.now_s * 1000)

    def end(self, number: int) -> None:
        if self.held:
            self.finish(self.held[number % len(self.held)])

    def wait(self, number: int) -> None:
        for _ in range(number * 3):
            self.now_s += 1
            self.seats.resume_overdue(self.now_s * 1000)


moves = st.sampled_from([FREE, PRO, PAID, Busy.work, Busy.work, Busy.answer, Busy.end, Busy.wait])


@given(plan=st.lists(st.tuples(moves, st.integers(0, 20)), max_size=80))
def test_no_attempt_is_parked_longer_than_its_bound(
    plan: list[tuple[tuple[int, int] | Callable[[Busy, int], None], int]],
) -> None:
    lane = Busy()
    for move, number in plan:
        if isinstance(move, tuple):
            lane.submit(move, cost=10 + number)
        else:
            move(lane, number)
        lane.named()
        assert len(lane.seats.host(lane.W).aside) <= 2
    for seat in lane.lent:
        assert seat.parks <= RULES.max_times
        assert seat.parked_ms <= RULES.max_s * RULES.max_times * 1000


# --- over streams in memory


async def preempted(house: House) -> tuple[Stream, Assign]:
    """A worker that was told to park its only attempt."""
    worker = await house.worker(can_park=True)
    await house.submit(user=UserId("free"))
    free = await worker.hears(Assign)
    await house.submit(priority=100)
    assert (await worker.hears(Park)).attempt_id == free.claim.attempt_id
    return worker, free


async def test_a_parked_attempt_takes_up_no_room(house: House) -> None:
    worker, free = await preempted(house)
    await house.workers.parked(worker.session, free.claim.attempt_id)
    await house.workers.parked(worker.session, free.claim.attempt_id)
    worker.session.offer(1)
    paid = await worker.hears(Assign)
    assert (worker.session.room, paid.job.user_id) == (0, "alice")
    worker.reports(paid)
    await worker.hears(Acknowledged)
    worker.session.offer(1)
    assert (await worker.hears(Resume)).attempt_id == free.claim.attempt_id
    assert worker.session.room == 0
    await house.workers.resumed(worker.session, free.claim.attempt_id)
    assert [name for name in house.seen.names() if name in {"parked", "resumed"}] == [
        "parked",
        "resumed",
    ]


async def test_words_about_attempts_that_it_does_not_run_are_ignored(house: House) -> None:
    worker, free = await preempted(house)
    await worker.hears(Welcome)
    await house.workers.parked(worker.session, new_attempt_id())
    await house.workers.resumed(worker.session, new_attempt_id())
    worker.reports(free)
    await house.workers.parked(worker.session, free.claim.attempt_id)
    house.workers.tell(worker.session.worker.id, Park(free.claim.attempt_id))
    house.workers.tell(worker.session.worker.id, Resume(free.claim.attempt_id))
    assert (await worker.hears(Acknowledged)).accepted
    assert "parked" not in house.seen.names()


async def test_orders_are_given_again_until_they_are_answered(house: House) -> None:
    worker, free = await preempted(house)
    house.queue.away = True
    await house.workers.parked(worker.session, free.claim.attempt_id)
    house.queue.away = False
    await house.caretaker.remind()
    await worker.hears(Park)  # the queue had not heard
    await house.workers.parked(worker.session, free.claim.attempt_id)
    house.clock.move(61)
    await house.caretaker.park()
    await worker.hears(Resume)
    await house.caretaker.remind()
    await worker.hears(Resume)
    await house.workers.resumed(worker.session, free.claim.attempt_id)
    await house.caretaker.remind()
    await worker.hears(Welcome)
    await worker.hears_nothing()


async def test_what_is_parked_is_known_after_a_new_stream_and_after_a_loss(house: House) -> None:
    worker, free = await preempted(house)
    attempt_id = free.claim.attempt_id
    await house.workers.parked(worker.session, attempt_id)
    await house.settled()
    back = await house.worker(can_park=True, held=(attempt_id,), parked=(attempt_id,), offer=False)
    assert (await back.hears(Welcome)).kept == (attempt_id,)
    assert [one.parked for one in await house.jobs.workers()] == [1]
    house.queue.forget()
    await house.workers.heartbeat(back.session)
    assert [(one.running, one.parked) for one in await house.jobs.workers()] == [(1, 1)]
    again = await house.worker(can_park=True, held=(attempt_id,), offer=False)
    await again.hears(Welcome)
    assert [(one.running, one.parked) for one in await house.jobs.workers()] == [(1, 0)]
