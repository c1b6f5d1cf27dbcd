"""Routes of the account: who am I, what may I, what else is on offer."""

from __future__ import annotations

from fastapi import APIRouter, Response

from gateway.web.context import Caller, LimitedByAddress, ServicesOf
from gateway.web.openapi import problems
from gateway.web.schemas.account import MeOut, PlansOut

_PLANS_MAX_AGE_S = 300

router = APIRouter(tags=["account"])


@router.get("/v1/me", operation_id="getMe", summary="Your account", responses=problems())
async def get_me(caller: Caller, services: ServicesOf) -> MeOut:
    """Plan, credits and subscription; the first call opens the account."""
    return MeOut.of(await services.accounts.account(caller.user_id))


@router.get(
    "/v1/plans",
    operation_id="listPlans",
    summary="Plans and packs on offer",
    dependencies=[LimitedByAddress],
    responses=problems(429, 504, caller=False),
)
async def list_plans(services: ServicesOf, response: Response) -> PlansOut:
    """Cheapest first; for everyone to see."""
    offers = await services.accounts.offers()
    response.headers["Cache-Control"] = f"public, max-age={_PLANS_MAX_AGE_S}"
    return PlansOut.of(offers)
