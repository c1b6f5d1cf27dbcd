"""How long a loop waits before it tries again."""

from __future__ import annotations

import asyncio
import random

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class Pause:
    """Waits that double up to a limit, each a random part of it so that replicas spread."""

    def __init__(
        self, first_s: float = _FIRST_PAUSE_S, longest_s: float = _LONGEST_PAUSE_S
    ) -> None:
        """Bounds in seconds."""
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s

    def reset(self) -> None:
        """The next wait is a short one."""
        self._next_s = self._first_s

    async def wait(self) -> None:
        """Waits 50 to 100 % of the current length and doubles it."""
        length_s = self._next_s
        self._next_s = min(length_s * 2, self._longest_s)
        await asyncio.sleep(length_s * random.uniform(0.5, 1.0))  # noqa: S311 (spreads load)
