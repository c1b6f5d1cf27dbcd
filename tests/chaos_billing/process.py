"""`python -m tests.chaos_billing.process FILE`: real billing, with a trap that its parent sets.

FILE holds the settings as JSON. Each line on stdin is a spot as JSON, or null; a line on stdout
answers that it is set. It ends with its stdin, that is, with its parent.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from billing.main import run
from billing.settings import Settings
from easel_kit.log import configure_logging
from tests.chaos_billing.trap import Spot, Trap


def say(word: str) -> None:
    """A line for the parent."""
    sys.stderr.write(word + "\n")
    sys.stderr.flush()


async def main(wanted: dict[str, object]) -> None:
    """Serves until stdin ends, or until it is killed."""
    trap, stop = Trap(), asyncio.Event()
    trap.install()
    settings = Settings.model_validate(wanted)
    configure_logging("billing", settings.log_level)
    listening = asyncio.create_task(listen(trap, stop))
    await run(settings, stop, on_ready=lambda port: say(f"ready {port}"))
    listening.cancel()


async def listen(trap: Trap, stop: asyncio.Event) -> None:
    """Sets the trap as the parent wishes."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        wish = json.loads(line)
        trap.arm(None if wish is None else Spot(**wish))
        say("armed")
    stop.set()


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
