"""The stand-in as a whole: its state, its courier, and the application that serves both."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from easel_local.stripe import timekeeping
from easel_local.stripe.api import Api
from easel_local.stripe.clock import StandInClock
from easel_local.stripe.control import Control
from easel_local.stripe.faults import Faults
from easel_local.stripe.idempotency import Keys
from easel_local.stripe.pages import Pages
from easel_local.stripe.settings import StripeSettings
from easel_local.stripe.snapshot import Snapshot
from easel_local.stripe.webhooks import Courier
from easel_local.stripe.world import World

_TICK_S = 0.5


class StandIn:
    """One stand-in of Stripe; `app` serves it, `live` lets its time pass."""

    def __init__(self, settings: StripeSettings, clock: StandInClock | None = None) -> None:
        """Build it; `load` reads what was kept."""
        self.world = World(clock or StandInClock(), settings.rules, settings.public_url)
        self.faults = Faults()
        self.courier = Courier(self.world, self.faults, settings.delivering, settings.webhook_url)
        keys = Keys()
        self.snapshot = Snapshot(settings.state_file, self.world, keys, self.courier)
        self.control = Control(self.world, self.faults, self.courier, self.snapshot)
        self.app = self._app(Api(self.world, keys, self.faults, self.snapshot))

    def load(self) -> None:
        """Become what was kept.

        Raises:
            InvalidInput: the state file holds something else.
        """
        self.snapshot.load()

    async def live(self) -> None:
        """Do what falls due as time passes, and keep what was delivered, until cancelled."""
        while True:
            timekeeping.catch_up(self.world)
            await self.snapshot.save()
            await asyncio.sleep(_TICK_S)

    def _app(self, api: Api) -> Starlette:
        async def health(_request: Request) -> JSONResponse:
            return JSONResponse({"status": "ok"})

        methods = ["GET", "POST", "DELETE", "PUT", "PATCH"]
        return Starlette(
            routes=[
                Route("/healthz", health),
                *self.control.routes(),
                *Pages(self.world, self.snapshot).routes(),
                Route("/v1/{rest:path}", api.serve, methods=methods),
            ]
        )
