"""What jobs would cost and when they would be done, with nothing reserved."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from easel_kit.errors import DeadlineExceeded, DependencyDown, Internal, Overloaded
from easel_kit.ids import UserId
from gateway.domain.account import Plan
from gateway.domain.job import JobState, Outlook
from gateway.domain.wish import Wish
from gateway.ports import Forecast, Ledger, Line, Quotes
from gateway.service.orders import Orders

_UNANSWERED = (DependencyDown, DeadlineExceeded, Overloaded, Internal)
# The work is the same whatever the seed.
_ANY_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What `jobs` jobs of one kind would come to; the outlook is the first one's.

    Without an outlook they would be refused at this moment, or the scheduler does not answer.
    """

    jobs: int
    price_millicredits: int
    """Of each."""
    available_millicredits: int
    outlook: Outlook | None
    warnings: tuple[str, ...]

    @property
    def total_millicredits(self) -> int:
        """Of all of them."""
        return self.jobs * self.price_millicredits

    @property
    def suffices(self) -> bool:
        """Whether the credits that are there would do."""
        return self.available_millicredits >= self.total_millicredits


class Estimates:
    """Looks ahead for a caller."""

    def __init__(
        self, orders: Orders, quotes: Quotes, ledger: Ledger, forecast: Forecast, line: Line
    ) -> None:
        """The price is what a hold would be: billing reckons both from the same work."""
        self._orders = orders
        self._quotes = quotes
        self._ledger = ledger
        self._forecast = forecast
        self._line = line

    async def estimate(self, user_id: UserId, wish: Wish, *, jobs: int = 1) -> Estimate:
        """What `jobs` such jobs would cost, and where the first of them would stand.

        Raises:
            InvalidInput: as a submit would.
            Forbidden: the plan does not allow this, as a submit would say.
            DependencyDown: billing does not answer, or no list of models was ever had.
        """
        order = await self._orders.settle(user_id, wish, fresh_seed=_ANY_SEED)
        price, account = await asyncio.gather(
            self._quotes.quote(user_id, order), self._ledger.get_account(user_id)
        )
        entitlements = account.entitlements
        warnings = list(await self._orders.warnings(order))
        outlook = None
        try:
            refusal = await self._refusal(user_id, entitlements.plan, jobs)
            if refusal:
                warnings.append(refusal)
            else:
                outlook = await self._forecast.foresee(user_id, entitlements, order)
        except _UNANSWERED:
            warnings.append("the queue does not answer: position and eta are unknown")
        return Estimate(
            jobs=jobs,
            price_millicredits=price,
            available_millicredits=account.balance.available_millicredits,
            outlook=outlook,
            warnings=tuple(warnings),
        )

    async def _refusal(self, user_id: UserId, plan: Plan, jobs: int) -> str:
        """Why the queue would refuse so many jobs now; empty where it would not."""
        counts = await self._line.count(user_id, ())
        is_open = counts.get(JobState.QUEUED, 0) + counts.get(JobState.RUNNING, 0)
        limit = plan.max_running + plan.max_waiting
        if is_open + jobs <= limit:
            return ""
        return (
            f"{is_open} of your jobs run or wait, and your plan allows {limit}: "
            "this would be refused at this moment"
        )
