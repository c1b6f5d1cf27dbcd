"""Looks for changes of the audit log: its chain from the database, its anchors from elsewhere.

Whatever was changed at or before a stream's last anchor is found, recomputed hashes included;
rows after it are only counted, since nothing outside the database vouches for them yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from easel_kit.anchors import AnchorBook, read_anchors
from easel_kit.audit import FIRST_HASH, AuditRow
from easel_kit.db import Connection, Pool, connection
from easel_kit.objects import ObjectStore

_STREAMS = "SELECT stream FROM audit UNION SELECT stream FROM audit_heads"

_ROWS = """
SELECT stream, sequence, at, actor, action, subject, detail, previous_hash, hash
FROM audit WHERE stream = $1 ORDER BY sequence
"""

_HEAD = "SELECT sequence, hash FROM audit_heads WHERE stream = $1"

_REMEMBERED = "SELECT object_key FROM audit_anchors"


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Something in a stream that is not as it was written; `stream` is empty for an object."""

    stream: str
    text: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.stream}: {self.text}" if self.stream else self.text


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a check came to.

    Attributes:
        findings: all that is wrong.
        rows: how many were read.
        unanchored: of these, how many come after their stream's last anchor.
    """

    findings: Sequence[AuditFinding]
    rows: int
    unanchored: int


async def verify(pool: Pool, store: ObjectStore, service: str) -> AuditReport:
    """Checks every stream of a service in one snapshot, with rows passing one by one.

    Raises:
        DependencyDown: the store or the database does not answer.
    """
    # the anchors first: one that is put after the snapshot would speak of rows that are not in it
    book = await read_anchors(store, service)
    async with (
        connection(pool) as lent,
        lent.transaction(isolation="repeatable_read", readonly=True),
    ):
        remembered = {row["object_key"] for row in await lent.fetch(_REMEMBERED)}
        if unread := remembered - _keys(book, service):
            book = await read_anchors(store, service, unread)
        return await check_chains(lent, book)


async def check_chains(lent: Connection, book: AnchorBook) -> AuditReport:
    """As `verify`, against anchors of the caller and in a transaction of the caller."""
    findings = [AuditFinding("", f"{key}: is missing or no anchor") for key in book.damaged]
    streams = {row["stream"] for row in await lent.fetch(_STREAMS)} | set(book.hashes)
    rows = unanchored = 0
    for stream in sorted(streams):
        chain = _Chain(stream, book.hashes.get(stream, {}))
        async for row in lent.cursor(_ROWS, stream):
            chain.take(row)
        chain.close(await lent.fetchrow(_HEAD, stream))
        findings += chain.findings
        rows += chain.rows
        unanchored += chain.unanchored
    return AuditReport(findings, rows, unanchored)


def _keys(book: AnchorBook, service: str) -> set[str]:
    known = {
        f"audit/{service}/{stream}/{sequence:020}.json"
        for stream, hashes in book.hashes.items()
        for sequence in hashes
    }
    return known | set(book.damaged)


@dataclass(slots=True)
class _Chain:
    """One stream, row by row in order."""

    stream: str
    anchors: Mapping[int, bytes]
    findings: list[AuditFinding] = field(default_factory=list)
    rows: int = 0
    unanchored: int = 0
    _last: int = 0
    _last_hash: bytes = FIRST_HASH
    _vouched: int = 0
    """The last anchor that fits: rows up to it are as they were."""
    _anchored: int = field(init=False)

    def __post_init__(self) -> None:
        self._anchored = max(self.anchors, default=0)

    def take(self, row: asyncpg.Record) -> None:
        """Checks a row against itself, the one before and its anchor."""
        sequence = row["sequence"]
        self.rows += 1
        self.unanchored += sequence > self._anchored
        if sequence != self._last + 1:
            self._find(f"{_span(self._last + 1, sequence - 1)} missing")
        if row["previous_hash"] != self._last_hash:
            self._find(f"row {sequence} does not follow from the row before it")
        if not _is_as_written(row):
            self._find(f"row {sequence} is not as it was written")
        self._last, self._last_hash = sequence, row["hash"]
        anchor = self.anchors.get(sequence)
        if anchor == row["hash"]:
            self._vouched = sequence
        elif anchor is not None:
            rewritten = _span(self._vouched + 1, sequence)
            self._find(f"{rewritten} not what the anchor of row {sequence} saw")

    def close(self, head: asyncpg.Record | None) -> None:
        """Checks the end."""
        if self._last < self._anchored:
            self._find(f"{_span(self._last + 1, self._anchored)} cut off")
        if head is None:
            self._find("has lost its head")
        elif (head["sequence"], head["hash"]) != (self._last, self._last_hash):
            self._find(f"ends with row {self._last}, its head says {head['sequence']}")

    def _find(self, text: str) -> None:
        self.findings.append(AuditFinding(self.stream, text))


def _span(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"


def _is_as_written(row: asyncpg.Record) -> bool:
    written = AuditRow(
        stream=row["stream"],
        sequence=row["sequence"],
        at=row["at"],
        actor=row["actor"],
        action=row["action"],
        subject=row["subject"],
        detail=row["detail"],
        previous_hash=row["previous_hash"],
    )
    try:
        return bool(written.hash() == row["hash"])
    except (OverflowError, ValueError):  # a time such as infinity
        return False
