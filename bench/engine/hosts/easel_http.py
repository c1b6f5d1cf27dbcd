"""Our engine behind HTTP: the least that a server can be, with LitServe's shape of requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from bench.engine.drawing import Artist, opened
from bench.engine.pictures import answer
from bench.engine.protocol import arguments
from bench.engine.trace import Request


def application(artist: Artist) -> FastAPI:
    """`POST /predict` as LitServe has it, `GET /health`."""
    app = FastAPI(lifespan=_nothing)

    @app.post("/predict")
    async def predict(asked: Request) -> dict[str, str]:
        image = await artist.picture(asked)
        return await asyncio.to_thread(answer, image)

    @app.get("/health")
    async def health() -> str:
        return "ok"

    return app


@asynccontextmanager
async def _nothing(_: FastAPI) -> AsyncIterator[None]:
    yield


async def _main() -> None:
    told = arguments("easel-http")
    async with opened(told.models_dir, told.models, told.slots) as artist:
        config = uvicorn.Config(
            application(artist), host="127.0.0.1", port=told.port, log_level="error"
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(_main())
