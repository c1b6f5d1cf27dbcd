"""Random lives of two accounts against a plain model; the ledger adds up after each step."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing.domain.accounts import Period, PlanSource, months_after
from billing.domain.holds import JobStatus
from billing.main import migrate
from billing.settings import Settings
from easel_kit.ids import new_job_id
from easel_local.testing import Databases
from tests.fakes.billing_model import FREE, Account, Answer, LedgerModel
from tests.fakes.billing_real import MONTHLY, RealLedger

T = TypeVar("T")
USERS = ("alice", "bob")
# few names, so that steps meet: the same job twice, two purchases of one payment
JOBS = tuple(new_job_id() for _ in range(24))
PURCHASES = tuple(f"cs_{number}" for number in range(12))
PAYMENTS = ("pi_0", "pi_1", "pi_2")
CLAWBACKS = tuple(f"re_{number}" for number in range(8))
PLANS = (FREE, "pro", "enterprise")
SOURCES = tuple(PlanSource)
THEN = (*USERS, None)
ENDS = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
REPORTS = (JobStatus.QUEUED, *ENDS)

users, jobs, parts = st.sampled_from(USERS), st.sampled_from(JOBS), st.integers(0, 7)


class Life(RuleBasedStateMachine):
    """What the model says, billing must say: each operation's answer, and every row after it."""

    databases: Databases

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.url = self.databases.create_migrated("billing", prepare)
        self.context = RealLedger.on(self.url)
        self.real = self.do(self.context.__aenter__())
        self.model = LedgerModel(MONTHLY)
        self.past: list[tuple[str, Answer]] = []
        self.cursor = 0

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.do(self.context.__aexit__(None, None, None))
        self.runner.close()
        self.databases.drop(self.url)

    def both(self, operation: str, *arguments: object) -> None:
        """Does the same to both."""
        now = self.real.clock.now()
        expected = getattr(self.model, operation)(*arguments, now)
        assert self.do(getattr(self.real, operation)(*arguments, now)) == expected
        self.past.append((operation, arguments))

    @initialize(amount=st.integers(1, 2_500), days=st.integers(1, 90))
    def open(self, amount: int, days: int) -> None:
        """Everybody has bought something, so that there is something to take back."""
        until = self.real.clock.now() + timedelta(days=days)
        for user in USERS:
            self.both("touch", user)
            self.both("buy", user, f"cs_{user}", PAYMENTS[0], amount, until)

    # --- jobs

    @rule(user=users, job=jobs, eighths=st.integers(1, 9))
    def place(self, user: str, job: str, eighths: int) -> None:
        """For a part of what there is, or more."""
        amount = self.model.accounts[user].available * eighths // 8
        self.both("place", user, job, amount + 1 if eighths > 8 else max(amount, 1))

    @precondition(lambda self: len(self.model.holds) < len(JOBS))
    @rule(user=users, data=st.data(), eighths=st.integers(4, 8), done=parts)
    def spend(self, user: str, data: st.DataObject, eighths: int, done: int) -> None:
        """A job from its hold to its end."""
        job = data.draw(st.sampled_from(sorted(set(JOBS) - set(self.model.holds))))
        self.place(user, job, eighths)
        self.both("capture", job, done, 7)

    @precondition(lambda self: len(self.model.holds) > 0)
    @rule(data=st.data(), how=st.sampled_from(("capture", "release", *REPORTS)), done=parts)
    def end(self, data: st.DataObject, how: str, done: int) -> None:
        """Of any job that has a hold, open or not; events come from the wrong user too."""
        job = data.draw(st.sampled_from(sorted(self.model.holds)))
        match how:
            case "capture":
                self.both("capture", job, done, 7)
            case "release":
                self.both("release", job)
            case _:
                self.cursor += 1
                owner = self.model.holds[job].user or USERS[0]
                user = data.draw(st.sampled_from((owner, owner, *USERS)))
                self.both("event", self.cursor, user, job, JobStatus(how))

    @rule(job=jobs)
    def release_before_the_hold(self, job: str) -> None:
        self.both("release", job)

    @rule(status=st.sampled_from((JobStatus.RUNNING, JobStatus.UNKNOWN, *ENDS)))
    def sweep(self, status: JobStatus) -> None:
        self.both("sweep", status)

    # --- money

    @rule(
        user=users,
        reference=st.sampled_from(PURCHASES),
        payment=st.sampled_from(PAYMENTS),
        amount=st.integers(1, 2_500),
        days=st.integers(1, 90),
    )
    def buy(self, user: str, reference: str, payment: str, amount: int, days: int) -> None:
        until = self.real.clock.now() + timedelta(days=days)
        self.both("buy", user, reference, payment, amount, until)

    @rule(
        user=users,
        reference=st.sampled_from(CLAWBACKS),
        data=st.data(),
        amount=st.integers(1, 2_500),
        may_owe=st.sampled_from((True, True, False)),
    )
    def claw(
        self, user: str, reference: str, data: st.DataObject, amount: int, *, may_owe: bool
    ) -> None:
        """Mostly of a payment that bought something."""
        bought = {lot.payment for lot in self.model.accounts[user].lots} - {""}
        payment = data.draw(st.sampled_from((*sorted(bought) * 3, PAYMENTS[0])))
        self.both("claw", user, reference, payment, amount, may_owe)

    @precondition(lambda self: any(one.clawbacks for one in self.model.accounts.values()))
    @rule(user=users, data=st.data())
    def give(self, user: str, data: st.DataObject) -> None:
        known = sorted(self.model.accounts[user].clawbacks)
        self.both("give", user, data.draw(st.sampled_from((*known * 3, CLAWBACKS[0]))))

    # --- plans

    @rule(user=users, plan=st.sampled_from(PLANS), how=st.sampled_from(SOURCES))
    def change_plan(self, user: str, plan: str, how: PlanSource) -> None:
        """By an operator, by a subscription, or because one ended."""
        now = self.real.clock.now()
        match how:
            case PlanSource.GRANTED:
                self.both("change_plan", user, plan)
            case PlanSource.SUBSCRIPTION:
                self.both("move", user, plan, Period(now, now + timedelta(days=30)), how)
            case PlanSource.DEFAULT:
                self.both("move", user, FREE, Period(now, months_after(now, 1)), how)

    # --- time, and time again

    @rule(hours=st.sampled_from((1, 5, 24, 24 * 6, 24 * 20, 24 * 40)), then=st.sampled_from(THEN))
    def time_passes(self, hours: int, then: str | None) -> None:
        """After it an account is looked at, which renews it, or none is."""
        self.real.clock.move(hours=hours)
        if then is not None:
            self.both("touch", then)

    @precondition(lambda self: len(self.past) > len(USERS))
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Anything of before again, with the same ids."""
        operation, arguments = data.draw(st.sampled_from(self.past))
        self.both(operation, *arguments)

    @invariant()
    def billing_says_what_the_model_says(self) -> None:
        for user, account in self.model.accounts.items():
            balance, lots, lines = self.do(self.real.seen(user))
            assert balance == self.balance_of(user, account)
            assert lots == [lot.row() for lot in account.by_expiry()]
            assert lines == account.lines
        holds, breaches = self.do(self.real.holds_and_breaches())
        assert holds == [
            (job, *hold.row(), hold.is_barred, hold.expires_at)
            for job, hold in sorted(self.model.holds.items())
        ]
        assert breaches == []

    def balance_of(self, user: str, account: Account) -> Answer:
        held = sum(
            hold.amount
            for hold in self.model.holds.values()
            if hold.user == user and hold.state == "open"
        )
        assert account.available == 0 or account.debt == 0
        assert held == sum(lot.held for lot in account.lots)
        plan = (account.plan, account.source, account.version)
        period = (account.period.start, account.period.end)
        return (account.available, held, account.debt, *plan, *period)


def prepare(url: str) -> None:
    migrate(Settings.model_validate({"database_url": url}))


@pytest.mark.timeout(0)
def test_random_lives(databases: Databases, pytestconfig: pytest.Config) -> None:
    Life.databases = databases
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=pytestconfig.getoption("--billing-examples"),
            stateful_step_count=50,
            deadline=None,
            # each step asks a database: shrinking would take minutes
            phases=(Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
