"""Routes of the account: who am I, what may I, what else is on offer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from easel_kit.errors import NotFound
from easel_kit.log import get_logger
from gateway.domain.privacy import ErasureState
from gateway.web import my_data
from gateway.web.context import Caller, LimitedByAddress, ServicesOf, Verified
from gateway.web.openapi import problems
from gateway.web.schemas.account import ErasureOut, MeOut, PlansOut
from gateway.web.streaming import all_of

_PLANS_MAX_AGE_S = 300
_DATA_NAME = "my_data.json"

_log = get_logger(__name__)

router = APIRouter(tags=["account"])


@router.get("/v1/me", operation_id="getMe", summary="Your account", responses=problems())
async def get_me(caller: Caller, services: ServicesOf) -> MeOut:
    """Plan, credits and subscription; the first call opens the account."""
    return MeOut.of(await services.accounts.account(caller.user_id))


@router.get(
    "/v1/me/data",
    operation_id="exportMyData",
    summary="Everything that is kept of you",
    response_class=StreamingResponse,
    responses=problems()
    | {
        200: {
            "description": "One JSON document, streamed; one that was cut off is no JSON",
            "content": {"application/json": {"schema": {"type": "object"}}},
            "headers": {
                "Content-Disposition": {
                    "schema": {"type": "string"},
                    "description": "A name for the file.",
                }
            },
        }
    },
)
async def export_my_data(caller: Caller, services: ServicesOf) -> StreamingResponse:
    """Account, subscription and ledger as billing keeps them, jobs, and pictures with links."""
    account = services.privacy.account(caller.user_id)
    # the first part before the answer begins: what goes wrong until then has a status of its own
    try:
        first = await anext(account)
    except (NotFound, StopAsyncIteration):
        first = b"null"
    _log.info("data.exported")
    parts = my_data.document(
        services.privacy, caller.user_id, all_of(first, account), datetime.now(UTC)
    )
    return StreamingResponse(
        parts,
        media_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="{_DATA_NAME}"'},
    )


@router.delete(
    "/v1/me",
    operation_id="eraseMe",
    summary="Erase your account",
    status_code=202,
    responses=problems(422)
    | {
        200: {"description": "The erasure is done", "model": ErasureOut},
        202: {"description": "The erasure goes on by itself"},
    },
)
async def erase_me(
    caller: Verified,
    services: ServicesOf,
    response: Response,
    confirm: Annotated[
        str,
        Query(
            max_length=200,
            description="Your user id, the token's `sub`: this cannot be undone.",
            examples=["5c1f0a3e-7d2b-4e8a-9f60-1b2c3d4e5f6a"],
        ),
    ],
) -> ErasureOut:
    """Stops your jobs, ends your subscription, removes pictures, jobs and account.

    Your token opens nothing from then on, but said again this tells how far it is. Bookings are
    kept, as the law asks, without your name.
    """
    erasure = await services.privacy.erase(caller.user_id, confirm)
    _log.info("erasure.requested", state=erasure.state.value)
    if erasure.state is ErasureState.DONE:
        response.status_code = 200
    return ErasureOut.of(erasure)


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
