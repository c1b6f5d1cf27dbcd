"""Anchors of the audit log: where each stream ended at a time, in the object store.

Whoever owns the database can rewrite a chain with all its hashes; what an anchor says of it lies
elsewhere, in a bucket whose objects nobody can replace (docs/operations/audit.md).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from easel_kit.audit import canonical_json
from easel_kit.clock import Clock
from easel_kit.db import Pool, connection
from easel_kit.errors import NotFound
from easel_kit.objects import ObjectStore

_MEDIA_TYPE = "application/json"
_AT_ONCE = 16
_KEY = re.compile(r"audit/(?P<service>[^/]+)/(?P<stream>[^/]+)/(?P<sequence>\d{20})\.json")

_FRESH = """
SELECT stream, sequence, hash, at FROM audit_heads h
WHERE sequence > 0 AND NOT EXISTS (
    SELECT FROM audit_anchors a WHERE a.stream = h.stream AND a.sequence = h.sequence
)
ORDER BY stream
"""

_REMEMBER = """
INSERT INTO audit_anchors (stream, sequence, object_key, anchored_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (stream, sequence) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A stream's last row at some time: its number, its hash and when it was written."""

    service: str
    stream: str
    sequence: int
    hash: bytes
    at: datetime

    @property
    def key(self) -> str:
        """`audit/{service}/{stream}/{sequence, 20 digits}.json`: sorts by age, never repeats."""
        return f"audit/{self.service}/{self.stream}/{self.sequence:020}.json"

    def to_bytes(self) -> bytes:
        """The object; the same anchor always has the same bytes."""
        return canonical_json(
            {
                "service": self.service,
                "stream": self.stream,
                "sequence": self.sequence,
                "hash": self.hash.hex(),
                "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            }
        ).encode()


@dataclass(frozen=True, slots=True)
class AnchorBook:
    """All anchors of a service, as the object store has them.

    Attributes:
        hashes: by stream and sequence.
        damaged: keys of objects that are no anchors, or another's.
    """

    hashes: Mapping[str, Mapping[int, bytes]]
    damaged: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Anchored:
    """What one round came to."""

    anchors: Sequence[Anchor]
    contradictions: Sequence[str]
    """Keys of anchors of another chain at the same place: left as they are."""


class AuditAnchors:
    """Puts the heads of one service's streams into the object store."""

    def __init__(self, pool: Pool, store: ObjectStore, clock: Clock, *, service: str) -> None:
        """`pool` sees the schema with the audit tables; `service` is part of each key."""
        self._pool = pool
        self._store = store
        self._clock = clock
        self._service = service

    async def anchor(self) -> Anchored:
        """Anchors each stream that has grown since the last round.

        Idempotent: a round that was cut off between the store and the database is repeated with
        the same bytes. An anchor is never overwritten by another.

        Raises:
            DependencyDown: the store or the database does not answer.
        """
        async with connection(self._pool) as lent:
            rows = await lent.fetch(_FRESH)
        anchors, contradictions = [], []
        for row in rows:
            anchor = Anchor(self._service, row["stream"], row["sequence"], row["hash"], row["at"])
            if not await self._put(anchor):
                contradictions.append(anchor.key)
                continue
            async with connection(self._pool) as lent:
                values = (anchor.stream, anchor.sequence, anchor.key, self._clock.now())
                await lent.execute(_REMEMBER, *values)
            anchors.append(anchor)
        return Anchored(anchors, contradictions)

    async def _put(self, anchor: Anchor) -> bool:
        data = anchor.to_bytes()
        try:
            return await self._store.get(anchor.key) == data
        except NotFound:
            await self._store.put(anchor.key, data, _MEDIA_TYPE)
            return True


async def read_anchors(
    store: ObjectStore, service: str, more_keys: Iterable[str] = ()
) -> AnchorBook:
    """Every anchor of the service in the store, and those of `more_keys`.

    Raises:
        DependencyDown: the store does not answer.
    """
    hashes: dict[str, dict[int, bytes]] = {}
    damaged: list[str] = []
    turn = asyncio.Semaphore(_AT_ONCE)

    async def read(key: str) -> None:
        async with turn:
            try:
                data = await store.get(key)
            except NotFound:
                damaged.append(key)
                return
        anchor = _anchor(key, service, data)
        if anchor is None:
            damaged.append(key)
        else:
            hashes.setdefault(anchor.stream, {})[anchor.sequence] = anchor.hash

    keys = {*await store.list(f"audit/{service}"), *more_keys}
    await asyncio.gather(*(read(key) for key in sorted(keys)))
    return AnchorBook(hashes, tuple(sorted(damaged)))


def _anchor(key: str, service: str, data: bytes) -> Anchor | None:
    named = _KEY.fullmatch(key)
    try:
        said = json.loads(data)
        anchor = Anchor(
            service=said["service"],
            stream=said["stream"],
            sequence=said["sequence"],
            hash=bytes.fromhex(said["hash"]),
            at=datetime.fromisoformat(said["at"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
    if named is None or named["service"] != service or anchor.key != key:
        return None
    return anchor if anchor.to_bytes() == data else None
