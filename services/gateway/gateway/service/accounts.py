"""The caller's account: plan, credits, ledger, and how often they may ask."""

from __future__ import annotations

from easel_kit.clock import Clock
from easel_kit.errors import (
    DeadlineExceeded,
    DependencyDown,
    Forbidden,
    Internal,
    InvalidInput,
    InvalidState,
    NotFound,
    Overloaded,
)
from easel_kit.ids import JobId, UserId
from gateway.domain.account import Account, LedgerPage
from gateway.domain.identity import Identity
from gateway.domain.money import Offers
from gateway.ports import Ledger
from gateway.service.memory import Recent

# A change of plan changes the request limit this many seconds later at most.
_LIMIT_FRESH_S = 60.0
_USERS_REMEMBERED = 10_000
_UNANSWERED = (DependencyDown, DeadlineExceeded, Overloaded, Internal)


class Accounts:
    """What billing knows of a caller."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        *,
        trust_plan_claim: bool,
        default_requests_per_minute: int,
    ) -> None:
        """With `trust_plan_claim` a verified token decides the plan: for local stacks only."""
        self._ledger = ledger
        self._trust_plan_claim = trust_plan_claim
        self._default_requests_per_minute = default_requests_per_minute
        self._limits: Recent[UserId, int] = Recent(clock, size=_USERS_REMEMBERED)
        self._claims: Recent[UserId, str] = Recent(clock, size=_USERS_REMEMBERED)

    async def admit(self, identity: Identity) -> None:
        """Moves the caller to the plan that the token claims, where that is trusted.

        A plan that a subscription pays for stays: what is paid for counts for more than a claim.
        While billing does not answer the caller is let in as they are.

        Raises:
            Forbidden: the claimed plan is not on offer.
        """
        user_id, claim = identity.user_id, identity.plan_claim
        if not self._trust_plan_claim or not claim or self._claims.get(user_id) == claim:
            return
        try:
            account = await self._claimed(user_id, claim)
        except (NotFound, InvalidInput) as error:
            raise Forbidden("the token claims a plan that is not on offer") from error
        except _UNANSWERED:
            return
        self._claims.put(user_id, claim)
        self._limits.put(user_id, account.entitlements.plan.requests_per_minute)

    async def _claimed(self, user_id: UserId, claim: str) -> Account:
        account = await self._ledger.get_account(user_id)
        if account.entitlements.plan.key == claim:
            return account
        try:
            return await self._ledger.change_plan(user_id, claim)
        except InvalidState:
            return account  # a subscription pays for the plan, and decides it

    async def requests_per_minute(self, user_id: UserId) -> int:
        """How often the caller may ask; the last figure known while billing does not answer."""
        limit = self._limits.get(user_id, max_age_s=_LIMIT_FRESH_S)
        if limit is not None:
            return limit
        try:
            entitlements = await self._ledger.get_entitlements(user_id)
        except _UNANSWERED:
            return self._limits.get(user_id) or self._default_requests_per_minute
        self._limits.put(user_id, entitlements.plan.requests_per_minute)
        return entitlements.plan.requests_per_minute

    async def account(self, user_id: UserId) -> Account:
        """The account, opened when the user is new."""
        return await self._ledger.get_account(user_id)

    async def offers(self) -> Offers:
        """Plans and packs on offer, cheapest first."""
        return await self._ledger.list_offers()

    async def ledger(
        self, user_id: UserId, *, page_size: int, page_token: str, job_id: JobId | None
    ) -> LedgerPage:
        """Ledger lines, newest first."""
        return await self._ledger.list_ledger(
            user_id, page_size=page_size, page_token=page_token, job_id=job_id
        )
