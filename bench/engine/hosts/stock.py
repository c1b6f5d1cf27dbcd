"""Stock diffusers in this process: one after another, or in batches of equal settings."""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from dataclasses import asdict
from typing import Any, cast

from PIL import Image

from bench.engine.costs import costs
from bench.engine.models import prepare
from bench.engine.protocol import arguments, claim_stdout, own_cpu_s, serve
from bench.engine.replay import Phase, judged, play
from bench.engine.stock import Stock
from bench.engine.trace import from_wire


def _play(stock: Stock, told: Namespace, asked: dict[str, Any]) -> dict[str, Any]:
    arrivals = from_wire(asked["arrivals"])
    before_s, began_s = own_cpu_s(), time.monotonic()
    replies = play(arrivals, stock.draw, most=told.batch, window_s=told.window_s)
    ended_s, after_s = time.monotonic(), own_cpu_s()
    served = judged(arrivals, replies, lambda found: cast("Image.Image", found))
    return asdict(Phase(ended_s - began_s, after_s - before_s, served))


async def _main() -> None:
    out = claim_stdout()
    told = arguments("stock")
    if told.prepare:
        prepare(told.models_dir, told.models)
    stock = Stock(told.models_dir, told.models)
    stock.warm_up()

    async def played(asked: dict[str, Any]) -> object:
        return _play(stock, told, asked)

    async def costed(asked: dict[str, Any]) -> object:
        return costs(stock, asked["model"], asked["repeats"])

    await serve(out, {"play": played, "costs": costed})


if __name__ == "__main__":
    asyncio.run(_main())
