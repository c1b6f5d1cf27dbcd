"""Use cases over stores that contradict themselves: an error, never a guess."""

from datetime import timedelta
from typing import Any

import pytest

from billing.domain.accounts import Account, AccountId, Balance, PlanSource, period_at
from billing.domain.plans import Catalogue, PlanVersion
from billing.domain.pricing import Work
from billing.service.accounts import Billing
from billing.storage.plans import read_plan_book
from easel_kit.errors import Internal
from easel_kit.ids import ModelKey, UserId, new_job_id
from tests.fakes.billing import MovableClock

ALICE = UserId("alice")
WORK = Work(ModelKey("shapes-64"), 64, 64, 10, 1)


class Answers:
    """Answers every call of any port with what it was given for its name, or None."""

    def __init__(self, **answers: object) -> None:
        self._answers = answers

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (any port's method)
        async def call(*_args: object, **_kwargs: object) -> object:
            return self._answers.get(name)

        return call


def billing(clock: MovableClock, *, accounts: Any, holds: Any) -> Billing:  # noqa: ANN401
    book = read_plan_book(None)
    catalogue = Catalogue(book.default, [PlanVersion(1, terms) for terms in book.plans])
    ledger: Any = Answers()
    return Billing(accounts, holds, ledger, catalogue, clock, hold_ttl=timedelta(seconds=1))


def account(clock: MovableClock) -> Account:
    plan = PlanVersion(1, read_plan_book(None).plans[0])
    period = period_at(clock.now(), clock.now())
    balance = Balance(50_000, 0)
    return Account(
        id=AccountId("acc_1"),
        user_id=ALICE,
        opened_at=clock.now(),
        plan=plan,
        entitlements_version=1,
        period=period,
        balance=balance,
        has_expired_lots=False,
        plan_source=PlanSource.DEFAULT,
        period_anchor=clock.now(),
    )


async def test_an_account_that_is_opened_and_not_there_is_a_fault() -> None:
    with pytest.raises(Internal):
        await billing(MovableClock(), accounts=Answers(), holds=Answers()).account(ALICE)


async def test_a_hold_that_is_neither_placed_nor_there_is_a_fault() -> None:
    clock = MovableClock()
    service = billing(clock, accounts=Answers(find=account(clock)), holds=Answers())
    with pytest.raises(Internal):
        await service.place_holds(ALICE, {new_job_id(): WORK}, "")
