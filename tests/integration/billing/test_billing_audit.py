"""The audit log under every kind of tampering: found up to the last anchor, counted after it.

`--tamperings 1000` for the long form.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from easel_kit.anchors import AnchorBook, AuditAnchors, read_anchors
from easel_kit.audit import FIRST_HASH, AuditEntry, AuditRow, append, canonical_json
from easel_kit.audit_check import AuditFinding, check_chains, verify
from easel_kit.db import Connection, Pool, open_pool, transaction
from easel_kit.errors import DependencyDown, InvalidInput
from easel_kit.objects import FolderStore
from tests.fakes.billing import MovableClock

BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
STREAMS = ("accounts", "others")
ANCHORED, TAIL = 24, 4
COLUMNS = "stream, sequence, at, actor, action, subject, detail, previous_hash, hash"


@dataclass
class Log:
    """Two streams with anchors along the way and a tail that none has seen."""

    pool: Pool
    store: FolderStore
    clock: MovableClock
    book: AnchorBook

    def anchors(self) -> AuditAnchors:
        return AuditAnchors(self.pool, self.store, self.clock, service="billing")


async def write(pool: Pool, stream: str, number: int, clock: MovableClock) -> None:
    clock.move(seconds=random.Random(number).uniform(0.001, 90))
    entry = AuditEntry(
        "operator" if number % 3 else "user",
        ("plan.changed", "purchase.granted", "account.exported")[number % 3],
        f"acc_{number % 7}",
        {"plan": "pro", "millicredits": number, "owed": None, "forced": number % 2 == 0},
    )
    async with transaction(pool) as lent:
        await append(lent, stream, entry, clock.now())


@pytest.fixture
async def log(billing_url: str, tmp_path: Path) -> AsyncIterator[Log]:
    clock = MovableClock(BEGAN)
    store = FolderStore(tmp_path / "objects", clock)
    async with open_pool(billing_url, schema="billing", name="test", max_size=4) as pool:
        made = Log(pool, store, clock, AnchorBook({}))
        for number in range(1, ANCHORED + 1):
            for stream in STREAMS:
                await write(pool, stream, number, clock)
            if number in {1, 7, 8, 20, ANCHORED}:
                await made.anchors().anchor()
        for number in range(TAIL):
            for stream in STREAMS:
                await write(pool, stream, ANCHORED + 1 + number, clock)
        made.book = await read_anchors(store, "billing")
        yield made


# --- tampering


class Tamperer:
    """Changes one log in one way, at a row that an anchor vouches for."""

    def __init__(
        self, lent: Connection, rng: random.Random, rows: Sequence[asyncpg.Record]
    ) -> None:
        self.lent = lent
        self.rng = rng
        self.stream = rng.choice(STREAMS)
        self.rows: list[dict[str, Any]] = [
            dict(row) for row in rows if row["stream"] == self.stream
        ]
        self.at = rng.randrange(ANCHORED)

    async def edit(self) -> None:
        """One value of one row, hashes left as they are."""
        column = self.rng.choice(
            ("at", "actor", "action", "subject", "detail", "previous_hash", "hash")
        )
        self.rows[self.at] |= {column: self._other(column)}
        await self.store()

    async def edit_and_seal(self) -> None:
        """One value, with every hash from there on made anew."""
        column = self.rng.choice(("at", "actor", "action", "subject", "detail"))
        self.rows[self.at] |= {column: self._other(column)}
        await self.store(sealed=True)

    async def edit_and_seal_one(self) -> None:
        """One value and that row's own hash."""
        self.rows[self.at] |= {"subject": "acc_mallory"}
        self._seal(self.rows[self.at])
        await self.store()

    async def remove(self) -> None:
        """A row; the numbers show it."""
        del self.rows[self.at]
        await self.store()

    async def remove_and_seal(self) -> None:
        """A row, with numbers and hashes made anew."""
        del self.rows[self.at]
        await self.store(renumbered=True, sealed=True)

    async def cut(self) -> None:
        """The end, the head left alone."""
        del self.rows[self.at :]
        await self.store(head=False)

    async def cut_with_head(self) -> None:
        """The end, and the head says so too."""
        del self.rows[self.at :]
        await self.store()

    async def cut_and_forge(self) -> None:
        """The end, and others in its place."""
        forged = [row | {"detail": '{"forged":true}'} for row in self.rows[self.at :]]
        self.rows[self.at :] = forged
        await self.store(sealed=True)

    async def delete(self) -> None:
        """The whole stream, as if there never had been one."""
        self.rows.clear()
        await self.store()
        await self.lent.execute("DELETE FROM audit_heads WHERE stream = $1", self.stream)
        if self.rng.random() < 0.5:
            await self.lent.execute("DELETE FROM audit_anchors WHERE stream = $1", self.stream)

    async def rename(self) -> None:
        """The whole stream, under another name and sealed anew."""
        kept = [row | {"stream": "renamed"} for row in self.rows]
        await self.delete()
        self.stream, self.rows = "renamed", kept
        await self.lent.execute(
            "INSERT INTO audit_heads VALUES ('renamed', 0, $1, now())", FIRST_HASH
        )
        await self.store(sealed=True)

    async def swap(self) -> None:
        """Two rows change places, all but their numbers."""
        other = self._another()
        a, b = self.rows[self.at], self.rows[other]
        a["sequence"], b["sequence"] = b["sequence"], a["sequence"]
        self.rows[self.at], self.rows[other] = b, a
        await self.store()

    async def swap_and_seal(self) -> None:
        """Two rows change places, and all is sealed anew."""
        other = self._another()
        self.rows[self.at], self.rows[other] = self.rows[other], self.rows[self.at]
        await self.store(renumbered=True, sealed=True)

    async def insert_and_seal(self) -> None:
        """A row between two, with numbers and hashes made anew."""
        forged = self.rows[self.at] | {"action": "purchase.granted", "detail": '{"free":true}'}
        self.rows.insert(self.at, forged)
        await self.store(renumbered=True, sealed=True)

    async def shift(self) -> None:
        """Every time from a row on, sealed anew."""
        for row in self.rows[self.at :]:
            row["at"] += timedelta(microseconds=self.rng.randint(1, 10**9))
        await self.store(sealed=True)

    async def blur(self) -> None:
        """A border between two values moves: the same letters, another meaning."""
        row = self.rows[self.at]
        row["action"], row["subject"] = row["action"] + row["subject"][0], row["subject"][1:]
        await self.store()

    async def store(
        self, *, renumbered: bool = False, sealed: bool = False, head: bool = True
    ) -> None:
        """Writes the stream's rows in the place of those that are there."""
        if renumbered:
            for number, row in enumerate(self.rows, 1):
                row["sequence"] = number
        if sealed:
            previous = FIRST_HASH
            for row in self.rows:
                row["previous_hash"] = previous
                previous = self._seal(row)
        await self.lent.execute("DELETE FROM audit WHERE stream = $1", self.stream)
        await self.lent.executemany(
            f"INSERT INTO audit ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            [tuple(row[column] for column in COLUMNS.split(", ")) for row in self.rows],
        )
        if head:
            last = self.rows[-1] if self.rows else {"sequence": 0, "hash": FIRST_HASH}
            await self.lent.execute(
                "UPDATE audit_heads SET sequence = $2, hash = $3 WHERE stream = $1",
                *(self.stream, last["sequence"], last["hash"]),
            )

    @staticmethod
    def _seal(row: dict[str, Any]) -> bytes:
        values = {name: value for name, value in row.items() if name != "hash"}
        row["hash"] = AuditRow(**values).hash()
        return bytes(row["hash"])

    def _another(self) -> int:
        return self.rng.choice([n for n in range(ANCHORED) if n != self.at])

    def _other(self, column: str) -> object:
        value = self.rows[self.at][column]
        if isinstance(value, datetime):
            return value + timedelta(microseconds=self.rng.choice([-1, 1, 86_400_000_000]))
        if isinstance(value, bytes):
            place = self.rng.randrange(32)
            flipped = value[place] ^ (1 << self.rng.randrange(8))
            return value[:place] + bytes([flipped]) + value[place + 1 :]
        if column == "detail":
            return canonical_json({"millicredits": self.rng.randrange(10**6, 10**9)})
        return f"{value}x"


WAYS: tuple[Callable[[Tamperer], Awaitable[None]], ...] = (
    Tamperer.edit,
    Tamperer.edit_and_seal,
    Tamperer.edit_and_seal_one,
    Tamperer.remove,
    Tamperer.remove_and_seal,
    Tamperer.cut,
    Tamperer.cut_with_head,
    Tamperer.cut_and_forge,
    Tamperer.delete,
    Tamperer.rename,
    Tamperer.swap,
    Tamperer.swap_and_seal,
    Tamperer.insert_and_seal,
    Tamperer.shift,
    Tamperer.blur,
)


class _UndoneError(Exception):
    """Takes a tampering back."""


async def is_found(
    log: Log, way: Callable[[Tamperer], Awaitable[None]], rng: random.Random
) -> bool:
    findings: list[AuditFinding] = []
    with contextlib.suppress(_UndoneError):
        async with transaction(log.pool) as lent:
            await lent.execute("SET LOCAL session_replication_role = replica")
            rows = await lent.fetch(f"SELECT {COLUMNS} FROM audit ORDER BY stream, sequence")
            await way(Tamperer(lent, rng, rows))
            findings += (await check_chains(lent, log.book)).findings
            raise _UndoneError
    return bool(findings)


@pytest.mark.timeout(300)
async def test_every_tampering_up_to_the_last_anchor_is_found(
    log: Log, pytestconfig: pytest.Config
) -> None:
    count = int(pytestconfig.getoption("--tamperings"))
    tried: Counter[str] = Counter()
    missed: list[str] = []
    for seed in range(count):
        rng = random.Random(seed)
        way = WAYS[seed % len(WAYS)]
        tried[way.__name__] += 1
        if not await is_found(log, way, rng):
            missed.append(f"{way.__name__}, seed {seed}")
    print(f"\n{sum(tried.values())} tamperings, {len(missed)} missed: {dict(tried)}")  # noqa: T201 (counts)
    assert missed == []
    assert tried.total() == count
    untouched = await verify(log.pool, log.store, "billing")
    assert untouched.findings == []


# --- what is reported


async def test_an_untouched_log_is_clean_and_its_tail_is_counted(log: Log) -> None:
    report = await verify(log.pool, log.store, "billing")
    assert report.findings == []
    assert (report.rows, report.unanchored) == (2 * (ANCHORED + TAIL), 2 * TAIL)
    await log.anchors().anchor()
    assert (await verify(log.pool, log.store, "billing")).unanchored == 0
    await log.anchors().anchor()
    assert len(await log.store.list("audit/billing")) == 12


async def test_a_tail_rewritten_before_its_anchor_is_not_yet_vouched_for(log: Log) -> None:
    async with transaction(log.pool) as lent:
        await lent.execute("SET LOCAL session_replication_role = replica")
        rows = await lent.fetch(f"SELECT {COLUMNS} FROM audit ORDER BY stream, sequence")
        tamperer = Tamperer(lent, random.Random(1), rows)
        tamperer.at = ANCHORED + 1
        await tamperer.edit_and_seal()
    report = await verify(log.pool, log.store, "billing")
    assert (report.findings, report.unanchored) == ([], 2 * TAIL)


async def test_an_anchor_that_is_gone_or_forged_is_named(log: Log) -> None:
    keys = await log.store.list("audit/billing")
    await log.store.delete(keys[0])
    await log.store.put(keys[1], b'{"hash":"00"}', "application/json")
    await log.store.put("audit/billing/notes.txt", b"hello", "text/plain")
    texts = [str(one) for one in (await verify(log.pool, log.store, "billing")).findings]
    assert sorted(texts) == sorted(
        f"{key}: is missing or no anchor" for key in (*keys[:2], "audit/billing/notes.txt")
    )


async def test_an_anchor_is_never_overwritten_by_another_chain(log: Log) -> None:
    await log.anchors().anchor()
    keys = await log.store.list("audit/billing")
    kept = [await log.store.get(key) for key in keys]
    async with transaction(log.pool) as lent:
        await lent.execute("SET LOCAL session_replication_role = replica")
        await lent.execute("DELETE FROM audit_anchors")
        rows = await lent.fetch(f"SELECT {COLUMNS} FROM audit ORDER BY stream, sequence")
        await Tamperer(lent, random.Random(2), rows).edit_and_seal()
    anchored = await log.anchors().anchor()
    assert len(anchored.contradictions) == 1
    assert [await log.store.get(key) for key in keys] == kept


async def test_a_round_cut_off_between_store_and_database_is_repeated(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = log.store.put

    async def put_and_die(key: str, data: bytes, media_type: str) -> None:
        await put(key, data, media_type)
        raise DependencyDown("killed")

    with monkeypatch.context() as patched:
        patched.setattr(log.store, "put", put_and_die)
        with pytest.raises(DependencyDown):
            await log.anchors().anchor()
    assert len((await log.anchors().anchor()).anchors) == 2
    report = await verify(log.pool, log.store, "billing")
    assert (report.findings, report.unanchored) == ([], 0)


async def test_rows_and_anchors_are_only_added(log: Log) -> None:
    for statement in (
        "UPDATE audit SET actor = 'x'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "UPDATE audit_anchors SET object_key = 'x'",
        "DELETE FROM audit_anchors",
        "TRUNCATE audit_anchors",
        "DELETE FROM audit_heads",
        "TRUNCATE audit_heads",
    ):
        async with log.pool.acquire() as lent:
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only added to"):
                await lent.execute(statement)


async def test_concurrent_writers_make_one_chain_and_a_rollback_leaves_no_gap(log: Log) -> None:
    async def add(number: int) -> None:
        with contextlib.suppress(_UndoneError):
            async with transaction(log.pool) as lent:
                entry = AuditEntry("billing", "plan.changed", f"acc_{number}", {})
                await append(lent, "accounts", entry, log.clock.now())
                if number % 4 == 0:
                    raise _UndoneError

    await asyncio.gather(*(add(number) for number in range(40)))
    report = await verify(log.pool, log.store, "billing")
    assert report.findings == []
    assert report.rows == 2 * (ANCHORED + TAIL) + 30


async def test_a_stream_needs_a_name_that_is_safe_in_a_key(log: Log) -> None:
    async with log.pool.acquire() as lent:
        with pytest.raises(InvalidInput, match="stream"):
            await append(lent, "../up", AuditEntry("user", "x", "y", {}), log.clock.now())


def test_the_canonical_form_is_what_is_written_down() -> None:
    """Computed by hand from the module's docstring, so that the form cannot drift."""
    row = AuditRow("s", 1, BEGAN, "user", "a.b", "acc_1", '{"x":1}', FIRST_HASH)
    fields = (
        b"easel.audit.v1", b"s", b"1", b"2026-01-31T12:00:00.000000+00:00", b"user", b"a.b",
        b"acc_1", b'{"x":1}', bytes(32),
    )  # fmt: skip
    raw = b"".join(len(field).to_bytes(8, "big") + field for field in fields)
    assert row.hash() == hashlib.sha256(raw).digest()
