"""Keeps the state over restarts: one JSON file, replaced as a whole."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from easel_kit.errors import InvalidInput
from easel_local.stripe.idempotency import Keys
from easel_local.stripe.webhooks import Courier
from easel_local.stripe.world import World

_FORMAT = 1


class Snapshot:
    """The file, and what is in it."""

    def __init__(self, file: Path | None, world: World, keys: Keys, courier: Courier) -> None:
        """Keep these in file; None keeps nothing."""
        self._file = file
        self._world = world
        self._keys = keys
        self._courier = courier
        self._saved = -1
        self._lock = asyncio.Lock()

    def load(self) -> None:
        """Become what the file says, where there is one.

        Raises:
            InvalidInput: it holds something else.
        """
        if self._file is None or not self._file.exists():
            return
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            if kept["format"] != _FORMAT:
                raise InvalidInput("state_file", "was written by another version")
            self._world.load(kept["world"])
            self._keys.load(kept["keys"])
            self._courier.load(kept["deliveries"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput("state_file", "holds no state of the stand-in") from error
        self._saved = self._world.version

    async def save(self) -> None:
        """Write what changed; returns when all that was done before the call is in the file.

        Calls that come together are written together.
        """
        if self._file is None:
            return
        wanted = self._world.version
        async with self._lock:
            if self._saved >= wanted:
                return
            version = self._world.version
            text = json.dumps(self._dump(), separators=(",", ":"))
            await asyncio.to_thread(_replace, self._file, text)
            self._saved = version

    def _dump(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "world": self._world.dump(),
            "keys": self._keys.dump(),
            "deliveries": self._courier.dump(),
        }


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.new")
    fresh.touch(mode=0o600)
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)
