"""What tests ask of processes that are not their own children."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

_PAUSE_S = 0.01


async def eventually(happened: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
    """Look every few milliseconds until it happened; fails after the deadline."""
    end = time.monotonic() + deadline_s
    while not happened():
        assert time.monotonic() < end, f"not in time: {what}"
        await asyncio.sleep(_PAUSE_S)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # ended in between, or no Linux
        return not Path("/proc/self").exists()
    return stat.rpartition(")")[2].split()[0] != "Z"
