"""Our engine in this process."""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from dataclasses import asdict
from typing import Any, cast

from PIL import Image

from bench.engine.drawing import Artist, opened
from bench.engine.protocol import Ops, arguments, claim_stdout, own_cpu_s, serve
from bench.engine.replay import Phase, ask_all, judged
from bench.engine.stock import Stock
from bench.engine.trace import from_wire
from bench.engine.trials import alone, cancels, preemptions


def _ops(artist: Artist, told: Namespace) -> Ops:
    async def played(asked: dict[str, Any]) -> object:
        arrivals = from_wire(asked["arrivals"])
        before_s, began_s = own_cpu_s(), time.monotonic()
        replies = await ask_all(arrivals, artist.picture)
        ended_s, after_s = time.monotonic(), own_cpu_s()
        served = judged(arrivals, replies, lambda found: cast("Image.Image", found))
        return asdict(Phase(ended_s - began_s, after_s - before_s, served))

    async def lonely(asked: dict[str, Any]) -> object:
        stock = Stock(told.models_dir, [asked["model"]])
        stock.warm_up()
        return [asdict(one) for one in await alone(artist, stock, asked["model"], asked["pairs"])]

    async def preempted(asked: dict[str, Any]) -> object:
        model, busy, count = asked["model"], asked["busy"], asked["count"]
        return [asdict(one) for one in await preemptions(artist, model, busy=busy, count=count)]

    async def cancelled(asked: dict[str, Any]) -> object:
        model, busy, count = asked["model"], asked["busy"], asked["count"]
        return [asdict(one) for one in await cancels(artist, model, busy=busy, count=count)]

    return {"play": played, "alone": lonely, "preempt": preempted, "cancel": cancelled}


async def _main() -> None:
    out = claim_stdout()
    told = arguments("easel")
    async with opened(told.models_dir, told.models, told.slots) as artist:
        await serve(out, _ops(artist, told))


if __name__ == "__main__":
    asyncio.run(_main())
