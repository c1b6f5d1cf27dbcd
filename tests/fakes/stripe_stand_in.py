"""The Stripe stand-in in the test's own process, on a free port, with hands on everything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import stripe
import uvicorn

from easel_local.ports import free_port
from easel_local.serving import Server
from easel_local.stripe import portal
from easel_local.stripe.control import MoveClock, OpenDispute, test_card
from easel_local.stripe.faults import Plan
from easel_local.stripe.objects import Obj
from easel_local.stripe.settings import StripeSettings
from easel_local.stripe.stand_in import StandIn
from easel_local.stripe.webhooks import Delivery, Send

KEY = "sk_test_easel"
SECRET = "whsec_easel_tests"
PAYS = "4242424242424242"
DECLINES = "4000000000000002"
FAILS_LATER = "4000000000000341"
"""Pays while its owner is at the page; renewals and upgrades are declined."""
IS_DISPUTED = "4000000000000259"


class StripeStandIn:
    """A running stand-in.

    Attributes:
        url: of its API, for `stripe.StripeClient(base_addresses={"api": url})`.
        key: the secret key.
        secret: signs its webhooks.
    """

    def __init__(self, stand_in: StandIn, url: str) -> None:
        self.url = url
        self.key = KEY
        self.secret = SECRET
        self.inner = stand_in
        self._clients: list[stripe.HTTPXClient] = []

    # --- the clock: it stands still until it is moved --------------------------------------------

    def now(self) -> datetime:
        """Its time."""
        return datetime.fromtimestamp(self.inner.world.clock.now(), UTC)

    def advance(self, by: timedelta) -> datetime:
        """Move it; renewals, retries and expiries happen on the way, in order. Its time then."""
        self.inner.control.move(MoveClock(advance_s=int(by.total_seconds())))
        return self.now()

    def advance_to(self, moment: datetime) -> datetime:
        """As `advance`, to a moment."""
        self.inner.control.move(MoveClock(set=int(moment.timestamp())))
        return self.now()

    # --- webhooks --------------------------------------------------------------------------------

    def deliver_to(self, target: str | Send) -> None:
        """Deliver events from now on to a URL, or to `async def (payload, signature) -> status`."""
        if isinstance(target, str):
            self.inner.courier.url, self.inner.courier.send = target, None
        else:
            self.inner.courier.send = target

    async def delivered(self) -> None:
        """Wait until no delivery is on its way any more, retries included."""
        await self.inner.courier.settled()

    @property
    def deliveries(self) -> list[Delivery]:
        """All, oldest first."""
        return list(self.inner.courier.deliveries.values())

    def faults(self, **plan: object) -> None:
        """What goes wrong from now on: `easel_local.stripe.faults.Plan`; nothing given: nothing."""
        self.inner.faults.set(Plan.model_validate(plan))

    # --- what people and banks do ----------------------------------------------------------------

    def pay(self, session_id: str, card: str = PAYS) -> Obj:
        """Pay a Checkout Session as on its page; Refused (402) when the card declines."""
        return self.inner.control.pay(session_id, card)

    def replace_card(self, customer_id: str, card: str = PAYS) -> None:
        """A customer gives another card, as on the portal's page."""
        portal.replace_card(self.inner.world, {"customer": customer_id}, test_card(card))

    def dispute(self, payment_intent: str, **wanted: object) -> Obj:
        """The bank opens a dispute; wanted as in `OpenDispute`."""
        return self.inner.control.dispute(
            OpenDispute.model_validate({"payment_intent": payment_intent, **wanted})
        )

    def decide(self, dispute_id: str, outcome: str) -> Obj:
        """The bank decides: won, lost, or of an inquiry warning_closed."""
        return self.inner.control.decide(dispute_id, outcome)

    def client(self) -> stripe.StripeClient:
        """The real SDK, pointed here; closed with the stand-in."""
        http = stripe.HTTPXClient()
        self._clients.append(http)
        return stripe.StripeClient(
            self.key,
            base_addresses={"api": self.url},
            http_client=http,
            max_network_retries=0,
        )

    async def close(self) -> None:
        """Close what `client` made."""
        for http in self._clients:
            await http.close_async()  # type: ignore[no-untyped-call]


@contextlib.asynccontextmanager
async def stripe_stand_in(
    *, state_file: Path | None = None, **settings: object
) -> AsyncIterator[StripeStandIn]:
    """A stand-in of its own, its clock standing still at the present second.

    Args:
        state_file: where it keeps its state; none: in memory.
        settings: more of `StripeSettings`.
    """
    port = free_port()
    chosen: dict[str, Any] = {
        "listen": f"127.0.0.1:{port}",
        "webhook_secret": SECRET,
        "signs_with": "stand-in",
        "first_retry_s": 0.02,
        "state_file": state_file,
    }
    stand_in = StandIn(StripeSettings.model_validate(chosen | settings))
    stand_in.load()
    stand_in.world.clock.stop()
    config = uvicorn.Config(
        stand_in.app,
        host="127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    tasks = [
        asyncio.create_task(server.serve()),
        asyncio.create_task(stand_in.courier.run()),
        asyncio.create_task(stand_in.live()),
    ]
    try:
        while not server.started:
            if tasks[0].done():
                await tasks[0]
            await asyncio.sleep(0.005)
        running = StripeStandIn(stand_in, f"http://127.0.0.1:{port}")
        try:
            yield running
        finally:
            await running.close()
    finally:
        server.should_exit = True
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await stand_in.snapshot.save()
