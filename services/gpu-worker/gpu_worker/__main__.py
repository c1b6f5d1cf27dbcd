"""`python -m gpu_worker`: flags and settings, then the worker."""

from __future__ import annotations

import asyncio
import gc
import sys

from easel_kit.lifecycle import entry
from gpu_worker.settings import Settings


async def _run(settings: Settings, stop: asyncio.Event) -> None:
    # torch and diffusers take seconds to import: only once settings are known to be right, and
    # without collections, which find nothing in half a million objects that stay
    gc.disable()
    from gpu_worker.main import run  # noqa: PLC0415 (above)

    gc.freeze()
    gc.enable()
    await run(settings, stop)


if __name__ == "__main__":
    sys.exit(entry("gpu-worker", Settings, _run))
