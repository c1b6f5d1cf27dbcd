"""The queue's Lua scripts: `common.lua` and a file each, loaded again when Redis forgot them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from easel_kit.redis import redis_errors

_FOLDER = Path(__file__).with_name("lua")

SCRIPTS = (
    "admit", "adopt", "claim", "drain", "expired", "join", "leave", "live", "overdue", "release",
    "remind", "remove", "renew", "requeue", "stop",
)  # fmt: skip


def source(name: str) -> str:
    """The whole text of a script."""
    return "\n".join((_FOLDER / f"{part}.lua").read_text() for part in ("common", "delays", name))


class Scripts:
    """Runs the scripts on one lane's keys."""

    def __init__(self, redis: Redis, lane: str) -> None:
        """`lane` becomes the hash tag of every key."""
        self.prefix = f"easel:{{{lane}}}:"
        self._scripts: dict[str, AsyncScript] = {
            name: redis.register_script(source(name)) for name in SCRIPTS
        }

    async def run(self, name: str, *arguments: str | bytes | float) -> Any:  # noqa: ANN401 (each script has its own answer)
        """Runs a script and answers what it returned.

        Raises:
            DependencyDown: no answer; the script may have run. All may be run again.
        """
        with redis_errors():
            return await self._scripts[name](keys=[self.prefix], args=arguments)
