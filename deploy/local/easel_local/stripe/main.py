"""The stand-in's composition root."""

from __future__ import annotations

import asyncio

import uvicorn

from easel_kit.lifecycle import Supervisor
from easel_kit.log import get_logger
from easel_local.serving import Server
from easel_local.stripe.settings import StripeSettings
from easel_local.stripe.stand_in import StandIn

_log = get_logger(__name__)


async def run(settings: StripeSettings, stop: asyncio.Event) -> None:
    """Serve until stop is set.

    Raises:
        InvalidInput: the state file holds something else.
    """
    stand_in = StandIn(settings)
    await asyncio.to_thread(stand_in.load)
    host, _, port = settings.listen.rpartition(":")
    config = uvicorn.Config(
        stand_in.app,
        host=host,
        port=int(port),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=max(1, int(settings.grace_s)),
    )
    server = Server(config)
    async with Supervisor(stop) as tasks:
        serving = tasks.start("http", server.serve(), may_end=True)
        tasks.start("time", stand_in.live())
        tasks.start("webhooks", stand_in.courier.run())
        _log.info("stripe.started", listen=settings.listen, webhook_url=settings.webhook_url)
        await stop.wait()
        server.should_exit = True
        await asyncio.wait([serving], timeout=settings.grace_s + 1)
        await stand_in.snapshot.save()
