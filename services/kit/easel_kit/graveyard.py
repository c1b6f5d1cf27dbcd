"""Tombstones of erased users in the object store: `erased/{service}/{hash in hex}.json`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import datetime

from easel_kit.erasure import Tombstone, UserHash
from easel_kit.errors import NotFound
from easel_kit.log import get_logger
from easel_kit.objects import ObjectStore

_NAME = re.compile(r"[0-9a-f]{64}")
_AT_ONCE = 16

_log = get_logger(__name__)


class ObjectGraveyard:
    """One service's tombstones."""

    def __init__(self, store: ObjectStore, service: str) -> None:
        """`store` outlives the database's backups; `service` names the folder."""
        self._store = store
        self._folder = f"erased/{service}"

    async def keep(self, tombstones: Sequence[Tombstone]) -> None:
        """Adds tombstones; known ones stay."""
        for tombstone in tombstones:
            key = f"{self._folder}/{tombstone.user_hash.hex()}.json"
            try:
                await self._store.get(key)
            except NotFound:
                data = json.dumps({"erased_at": tombstone.erased_at.isoformat()}).encode()
                await self._store.put(key, data, "application/json")

    async def all(self) -> Sequence[Tombstone]:
        """All that were kept; what is no tombstone is passed over with a warning."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def read(key: str) -> Tombstone | None:
            async with turn:
                return await self._read(key)

        found = await asyncio.gather(*(read(key) for key in await self._store.list(self._folder)))
        return [one for one in found if one is not None]

    async def _read(self, key: str) -> Tombstone | None:
        name = key.removeprefix(f"{self._folder}/").removesuffix(".json")
        try:
            said = json.loads(await self._store.get(key))
            erased_at = datetime.fromisoformat(said["erased_at"])
        except (NotFound, ValueError, KeyError, TypeError):
            erased_at = None
        if erased_at is None or not _NAME.fullmatch(name):
            _log.warning("tombstone.unreadable", key=key)
            return None
        return Tombstone(UserHash(bytes.fromhex(name)), erased_at)
