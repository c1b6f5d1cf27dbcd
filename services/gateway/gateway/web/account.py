"""Routes of the account: who am I, what may I, where did my credits go."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from easel_kit import ids
from gateway.web.context import Caller, LimitedByAddress, ServicesOf
from gateway.web.openapi import problems
from gateway.web.schemas.account import LedgerOut, MeOut, PlanOut, PlansOut
from gateway.web.schemas.base import JOB_EXAMPLE

_PLANS_MAX_AGE_S = 300

router = APIRouter(tags=["account"])


@router.get("/v1/me", operation_id="getMe", summary="Your account", responses=problems())
async def get_me(caller: Caller, services: ServicesOf) -> MeOut:
    """Plan and credits; the first call opens the account."""
    return MeOut.of(await services.accounts.account(caller.user_id))


@router.get(
    "/v1/plans",
    operation_id="listPlans",
    summary="Plans on offer",
    dependencies=[LimitedByAddress],
    responses=problems(429, 504, caller=False),
)
async def list_plans(services: ServicesOf, response: Response) -> PlansOut:
    """Cheapest first; for everyone to see."""
    plans = await services.accounts.plans()
    response.headers["Cache-Control"] = f"public, max-age={_PLANS_MAX_AGE_S}"
    return PlansOut(items=tuple(PlanOut.of(plan) for plan in plans))


@router.get(
    "/v1/billing/ledger",
    operation_id="listLedger",
    summary="Where your credits went",
    responses=problems(422),
)
async def list_ledger(
    caller: Caller,
    services: ServicesOf,
    job_id: Annotated[
        str, Query(max_length=64, description="Only this job's.", examples=[JOB_EXAMPLE])
    ] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str, Query(max_length=512, description="From the previous page.")] = "",
) -> LedgerOut:
    """Every change of the credits that can be spent, newest first."""
    page = await services.accounts.ledger(
        caller.user_id,
        page_size=limit,
        page_token=cursor,
        job_id=ids.job_id(job_id) if job_id else None,
    )
    return LedgerOut.of(page)
