"""What an estimate quotes is what a submit sets aside: one mapping, billing's own price."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, cast

import grpc
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.plans import PlanTerms, parse_plan_book
from billing.rpc.mapping import work_from, works_from
from easel.billing.v1 import billing_pb2 as pb
from easel_kit.errors import Forbidden
from easel_kit.ids import ImageId, new_image_id, new_job_id
from gateway.clients.billing import BillingClient
from gateway.domain.catalogue import Feature
from gateway.domain.wish import HiresWish, InitWish, Wish, settle
from tests.fakes.gateway_ports import ALICE, model

_IMAGE = new_image_id()
_FEATURES = tuple(feature.value for feature in Feature)
_MODELS = tuple(
    model(key, sizes=(), features=_FEATURES, max_steps=200) for key in ("shapes-64", "other")
)


def _terms() -> PlanTerms:
    document = tomllib.loads(resources.files("billing").joinpath("plans.toml").read_text())
    return max(parse_plan_book(document).plans, key=lambda plan: plan.max_pixels)


class Till:
    """A channel to billing's mapping and prices, without the wire."""

    def __init__(self) -> None:
        self._terms = _terms()

    def unary_unary(self, path: str, *_: object, **__: object) -> Callable[..., Awaitable[Any]]:
        """The method of that path."""

        async def call(request: Any) -> Any:  # noqa: ANN401 (any message)
            return getattr(self, path.rpartition("/")[2])(request)

        return call

    unary_stream = unary_unary

    def Quote(self, request: pb.QuoteRequest) -> pb.QuoteResponse:  # noqa: N802
        return pb.QuoteResponse(millicredits=self._terms.price_of(work_from(request.work)))

    def PlaceHolds(self, request: pb.PlaceHoldsRequest) -> pb.PlaceHoldsResponse:  # noqa: N802
        holds = [
            pb.Hold(
                job_id=job_id,
                state=pb.HOLD_STATE_OPEN,
                amount_millicredits=self._terms.price_of(work),
            )
            for job_id, work in works_from(request.jobs).items()
        ]
        return pb.PlaceHoldsResponse(holds=holds)


_strength = st.floats(0.01, 1)
_side = st.integers(1, 256).map(lambda grains: grains * 8)
wishes = st.builds(
    Wish,
    prompt=st.just("x"),
    model=st.sampled_from([one.key for one in _MODELS]),
    width_px=_side,
    height_px=_side,
    steps=st.none() | st.integers(1, 200),
    guidance=st.none() | st.floats(1, 50),
    seed=st.integers(0, 2**32 - 1),
    image_count=st.integers(1, 16),
    init_image=st.none()
    | st.builds(
        InitWish,
        image=st.just(_IMAGE),
        strength=_strength,
        mask=st.none() | st.just(_IMAGE),
    ),
    hires=st.none()
    | st.builds(
        HiresWish,
        scale=st.floats(1.01, 1.9),
        steps=st.none() | st.integers(1, 200),
        strength=st.none() | _strength,
    ),
)


async def _both(wish: Wish) -> tuple[int | str, int | str]:
    client = BillingClient(cast("grpc.aio.Channel", Till()))
    keys: dict[ImageId, str] = {_IMAGE: "users/alice/x.png"}
    quoted, held = (
        settle(wish, _MODELS, fresh_seed=seed, object_keys=keys) for seed in (0, 2**32 - 1)
    )
    job_id = new_job_id()

    async def hold() -> int:
        placed = await client.place_holds(ALICE, {job_id: held})
        return placed.holds[job_id].amount_millicredits

    async def outcome(asked: Awaitable[int]) -> int | str:
        try:
            return await asked
        except Forbidden as refusal:
            return str(refusal)

    return await outcome(client.quote(ALICE, quoted)), await outcome(hold())


@given(wishes)
def test_an_estimate_is_what_a_hold_sets_aside(wish: Wish) -> None:
    quoted, held = asyncio.run(_both(wish))
    assert quoted == held
