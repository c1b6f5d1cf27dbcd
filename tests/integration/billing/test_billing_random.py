"""Random lives of two accounts against a plain model; the ledger adds up after each."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from billing.domain.accounts import period_at
from billing.domain.holds import JobReport, JobStatus
from billing.domain.pricing import charge
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.errors import Conflict, InsufficientCredits, InvalidState
from easel_kit.ids import new_job_id
from tests.fakes.billing_stack import FREE_GRANT, PRO_GRANT, BillingStack, work

T = TypeVar("T")
USERS = ("alice", "bob")
GRANTS = {"free": FREE_GRANT, "pro": PRO_GRANT}


class Lot:
    """Credits of the model."""

    def __init__(self, amount: int, ends: object) -> None:
        self.free = amount
        self.ends = ends


class Life(RuleBasedStateMachine):
    """What the model says, billing must say."""

    new_url: Callable[[], str]
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = BillingStack(self.new_url())
        self.context = self.stack.running()
        self.do(self.context.__aenter__())

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.do(self.context.__aexit__(None, None, None))
        self.runner.close()

    @initialize()
    def open(self) -> None:
        now = self.stack.clock.now()
        self.opened = now
        self.end = period_at(now, now).end
        self.plan = dict.fromkeys(USERS, "free")
        self.had = {user: {"free"} for user in USERS}
        self.lots = {user: [Lot(FREE_GRANT, self.end)] for user in USERS}
        # job -> user, amount, [(lot, part)] while open
        self.open_holds: dict[str, tuple[str, int, list[tuple[Lot, int]]]] = {}
        self.ended: dict[str, tuple[int, int]] = {}
        for user in USERS:
            self.do(self.stack.account(user))

    def available(self, user: str) -> int:
        return sum(lot.free for lot in self.lots[user])

    def held(self, user: str) -> int:
        return sum(amount for owner, amount, _ in self.open_holds.values() if owner == user)

    def settle(self, job_id: str, captured: int) -> None:
        if job_id not in self.open_holds:
            return
        user, amount, parts = self.open_holds.pop(job_id)
        missing = captured
        for lot, part in parts:
            spent = min(part, missing)
            missing -= spent
            lot.free += part - spent
        self.ended[job_id] = (amount, captured)
        self.expire(user)

    def expire(self, user: str) -> None:
        for lot in self.lots[user]:
            if lot.ends <= self.stack.clock.now():  # type: ignore[operator]
                lot.free = 0

    @rule(
        target=jobs,
        user=st.sampled_from(USERS),
        steps=st.integers(1, 200),
        images=st.integers(1, 4),
    )
    def place(self, user: str, steps: int, images: int) -> Any:  # noqa: ANN401 (a job id or none)
        job_id = new_job_id()
        price = -(-64 * 64 * steps * images // 100)
        if price > self.available(user):
            with pytest.raises(InsufficientCredits) as refused:
                self.do(self.stack.place(user, job_id, of=work(steps=steps, image_count=images)))
            assert refused.value.needed_millicredits == price
            assert refused.value.available_millicredits == self.available(user)
            return multiple()
        answer = self.do(self.stack.place(user, job_id, of=work(steps=steps, image_count=images)))
        assert answer.hold.amount_millicredits == price
        parts, missing = [], price
        for lot in sorted(self.lots[user], key=lambda lot: str(lot.ends)):
            part = min(lot.free, missing)
            if part:
                lot.free -= part
                missing -= part
                parts.append((lot, part))
        self.open_holds[job_id] = (user, price, parts)
        return job_id

    @rule(job_id=jobs, done=st.integers(0, 9), total=st.integers(9, 9))
    def capture(self, job_id: str, done: int, total: int) -> None:
        amount = self.open_holds.get(job_id, ("", 0, []))[1]
        self.settle(job_id, charge(amount, done, total))
        hold = self.do(self.stack.capture(job_id, done, total))
        assert (hold.amount_millicredits, hold.captured_millicredits) == self.ended[job_id]

    @rule(job_id=jobs)
    def release(self, job_id: str) -> None:
        self.settle(job_id, 0)
        hold = self.do(self.stack.release(job_id))
        assert (hold.amount_millicredits, hold.captured_millicredits) == self.ended[job_id]

    @rule(job_id=jobs, status=st.sampled_from(["queued", "succeeded", "failed", "cancelled"]))
    def event(self, job_id: str, status: str) -> None:
        user, amount, _ = self.open_holds.get(job_id, ("", 0, []))
        report = JobReport(JobStatus(status), 4, 10)
        if status != "queued" and user:
            self.settle(job_id, {"succeeded": amount, "cancelled": amount * 4 // 10}.get(status, 0))
        owner = user or next(name for name in USERS if self.owns(name, job_id))
        self.do(self.stack.happen(job_id, report, owner))

    def owns(self, user: str, job_id: str) -> bool:
        request = pb.GetHoldsRequest(user_id=user, job_ids=[job_id])
        return bool(self.do(self.ask_holds(request)))

    async def ask_holds(self, request: pb.GetHoldsRequest) -> list[pb.Hold]:
        return list((await self.stack.rpc.GetHolds(request)).holds)

    @rule(job_id=jobs)
    def place_again(self, job_id: str) -> None:
        """A repeated hold with other work is refused whatever became of the first."""
        with pytest.raises((Conflict, InvalidState)):
            self.do(self.stack.place("alice", job_id, work(steps=201)))

    @rule(user=st.sampled_from(USERS), plan=st.sampled_from(sorted(GRANTS)))
    def change_plan(self, user: str, plan: str) -> None:
        self.do(self.stack.change_plan(plan, user))
        self.plan[user] = plan
        if plan not in self.had[user]:
            self.had[user].add(plan)
            self.lots[user].append(Lot(GRANTS[plan], self.end))

    @rule(days=st.integers(1, 40))
    def time_passes(self, days: int) -> None:
        self.stack.clock.move(days=days)
        # jobs live as long as a test lets them: the sweeper hears that they run
        for job_id in self.open_holds:
            self.stack.scheduler.reports[job_id] = JobReport(JobStatus.RUNNING)  # type: ignore[index]
        now = self.stack.clock.now()
        for user in USERS:
            self.expire(user)
            if now >= self.end:
                self.had[user] = {self.plan[user]}
                self.lots[user].append(
                    Lot(GRANTS[self.plan[user]], period_at(self.opened, now).end)
                )
        self.end = period_at(self.opened, now).end
        assert self.end > now > self.end - timedelta(days=32)

    @invariant()
    def billing_says_what_the_model_says(self) -> None:
        for user in USERS:
            if hasattr(self, "lots"):
                assert self.do(self.stack.balance(user)) == (self.available(user), self.held(user))
        assert self.do(self.stack.breaches()) == []


def test_random_lives(new_billing_url: Callable[[], str]) -> None:
    Life.new_url = staticmethod(new_billing_url)
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=10,
            stateful_step_count=15,
            deadline=None,
            # each step asks a database: shrinking would take minutes
            phases=(Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
