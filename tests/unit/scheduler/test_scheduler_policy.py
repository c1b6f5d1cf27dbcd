"""Who is next, by the plain-Python policy: the bounds that SFQ promises."""

from __future__ import annotations

from itertools import count
from statistics import median

import pytest

from easel_kit.ids import JobId, ModelKey, UserId
from scheduler.domain.policy import FairQueue, Share, Waiting

M = ModelKey("m")
FREE = Share(1, 0, 1, 1_000)
PRO = Share(1, 10, 4, 1_000)
ENTERPRISE = Share(1, 100, 16, 1_000)


class Line:
    """A queue whose worker finishes each job before it takes the next."""

    def __init__(self) -> None:
        self.queue = FairQueue()
        self._places = count(1)

    def add(
        self, user: str, share: Share, cost_ms: int = 100, *, jobs: int = 1, model: ModelKey = M
    ) -> list[JobId]:
        found = []
        for _ in range(jobs):
            place = next(self._places)
            job = Waiting(JobId(f"job_{place}"), UserId(user), model, cost_ms, place)
            self.queue.admit(job, share)
            found.append(job.job_id)
        return found

    def serve(self, *models: ModelKey) -> Waiting | None:
        job = self.queue.claim(models or (M,))
        if job is not None:
            self.queue.remove(job.job_id)
        return job

    def served(self, jobs: int) -> list[UserId]:
        found = [self.serve() for _ in range(jobs)]
        return [job.user_id for job in found if job is not None]


@pytest.mark.parametrize("share", [PRO, ENTERPRISE])
def test_a_job_into_a_quiet_higher_tier_goes_next(share: Share) -> None:
    line = Line()
    line.add("free", FREE, jobs=500)
    line.served(100)
    for _ in range(5):
        line.add("paying", share)
        assert line.served(1) == ["paying"]
        line.served(40)


def test_idling_gathers_no_credit() -> None:
    line = Line()
    line.add("free", FREE, jobs=1_000)
    line.served(500)
    line.add("pro", PRO, jobs=100)  # away for 500 dispatches
    assert line.served(50).count(UserId("pro")) <= 50 * 4 / 5 + 1


def test_a_fresh_free_user_waits_a_bounded_number_of_dispatches() -> None:
    waits = []
    for warm_up in range(40):
        line = Line()
        for tier, share in (("pro", PRO), ("enterprise", ENTERPRISE)):
            line.add(tier, share, jobs=1_000)
        line.served(warm_up)
        (fresh,) = line.add("fresh", FREE)
        for wait in range(1, 23):
            job = line.serve()
            if job is not None and job.job_id == fresh:
                waits.append(wait)
                break
    assert len(waits) == 40
    assert median(waits) <= 21


def test_ties_go_to_the_higher_priority_and_then_to_who_came_first() -> None:
    line = Line()
    for user, share in (("a", FREE), ("b", PRO), ("c", ENTERPRISE)):
        line.add(user, share)
    assert line.served(3) == ["c", "b", "a"]
    line = Line()
    for user in ("late", "early", "middle"):
        line.add(user, FREE)
    assert line.served(3) == ["late", "early", "middle"]


def test_a_user_at_the_limit_is_passed_by_and_returns() -> None:
    queue = FairQueue()
    one_at_a_time = Share(1, 0, 1, 1)
    jobs = [Waiting(JobId(f"{n}"), UserId("u"), M, 10, n) for n in range(3)]
    for job in jobs:
        queue.admit(job, one_at_a_time)
    assert queue.claim([M]) == jobs[0]
    assert queue.claim([M]) is None
    assert queue.running(UserId("u")) == 1
    queue.requeue(jobs[0].job_id)
    assert queue.claim([M]) == jobs[0]  # its old place
    queue.remove(jobs[0].job_id)
    assert queue.claim([M]) == jobs[1]
    assert not queue.hold(jobs[2].job_id)
    queue.remove(jobs[1].job_id)
    assert queue.hold(jobs[2].job_id)
    assert queue.waiting() == []


def test_a_user_who_changes_tier_moves_with_the_waiting_jobs() -> None:
    line = Line()
    line.add("free", FREE, jobs=100)
    (mine,) = line.add("me", FREE)
    line.served(3)
    line.queue.admit(Waiting(JobId("more"), UserId("me"), M, 100, 999), Share(2, 100, 16, 10))
    line.queue.admit(Waiting(JobId("most"), UserId("me"), M, 100, 1_000), FREE)  # an older plan
    job = line.serve()
    assert job is not None
    assert (job.user_id, job.job_id != mine) == ("me", True)


def test_only_models_of_the_worker_are_offered() -> None:
    line = Line()
    other = ModelKey("other")
    line.add("a", FREE, model=other)
    assert line.serve() is None
    line.add("b", FREE)
    assert line.served(1) == ["b"]
    job = line.serve(M, other)
    assert job is not None
    assert job.user_id == "a"
    line.queue.remove(JobId("unknown"))
    again = Waiting(JobId("job_9"), UserId("b"), M, 10, 9)
    line.queue.admit(again, FREE)
    line.queue.admit(again, FREE)
    assert line.queue.waiting() == ["job_9"]
    line.queue.remove(again.job_id)
    assert line.queue.waiting() == []
