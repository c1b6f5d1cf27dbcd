"""The issuer's composition root."""

from __future__ import annotations

import asyncio

import uvicorn

from easel_kit.lifecycle import Supervisor
from easel_kit.log import get_logger
from easel_local.issuer.app import build_app
from easel_local.issuer.keys import load_or_make_key
from easel_local.issuer.settings import IssuerSettings
from easel_local.serving import Server

_log = get_logger(__name__)


async def run(settings: IssuerSettings, stop: asyncio.Event) -> None:
    """Serve until stop is set.

    Raises:
        InvalidInput: the key file holds no RSA key.
    """
    key = await asyncio.to_thread(load_or_make_key, settings.key_file)
    host, _, port = settings.listen.rpartition(":")
    config = uvicorn.Config(
        build_app(settings, key),
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
        _log.info("issuer.started", listen=settings.listen, issuer=settings.name)
        await stop.wait()
        server.should_exit = True
        await asyncio.wait([serving], timeout=settings.grace_s + 1)
