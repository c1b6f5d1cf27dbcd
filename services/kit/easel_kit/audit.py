"""The audit log: rows that are only added, each sealed by a hash over itself and the one before.

A service keeps the tables below in its own schema and writes a row in the transaction of what the
row is about. A row's hash is SHA-256 over these fields in this order, each preceded by its length
in bytes as 8 bytes, big-endian, so that no two rows have the same bytes:

    "easel.audit.v1", stream, sequence in decimal digits, time (UTC, RFC 3339 with microseconds,
    "+00:00"), actor, action, subject, detail, hash of the row before (32 zero bytes for the first)

Texts are UTF-8. `detail` is JSON with sorted keys, without spaces, and is hashed as it is stored.
`easel_kit.anchors` puts hashes where the database's owner cannot change them;
`easel_kit.audit_check` looks for what was changed all the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from easel_kit.db import Connection
from easel_kit.errors import InvalidInput

FIRST_HASH = bytes(32)
"""Stands for the row before the first."""

Detail: TypeAlias = Mapping[str, str | int | bool | None]

_FORM = "easel.audit.v1"
_STREAM = re.compile(r"[a-z][a-z0-9_-]{0,63}")

TABLES_V1: tuple[str, ...] = (
    # the lock of a stream, and where it ends
    """
    CREATE TABLE audit_heads (
        stream text PRIMARY KEY,
        sequence bigint NOT NULL CHECK (sequence >= 0),
        hash bytea NOT NULL CHECK (octet_length(hash) = 32),
        at timestamptz NOT NULL
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE audit (
        stream text NOT NULL,
        sequence bigint NOT NULL CHECK (sequence > 0),
        at timestamptz NOT NULL,
        actor text NOT NULL,
        action text NOT NULL,
        subject text NOT NULL,
        -- JSON as it was hashed, byte for byte
        detail text NOT NULL,
        previous_hash bytea NOT NULL CHECK (octet_length(previous_hash) = 32),
        hash bytea NOT NULL CHECK (octet_length(hash) = 32),
        PRIMARY KEY (stream, sequence)
    )
    """,
    "CREATE INDEX audit_of_subject ON audit (subject)",
    # what is in the object store; the objects themselves are the evidence
    """
    CREATE TABLE audit_anchors (
        stream text NOT NULL,
        sequence bigint NOT NULL CHECK (sequence > 0),
        object_key text NOT NULL,
        anchored_at timestamptz NOT NULL,
        PRIMARY KEY (stream, sequence)
    )
    """,
    """
    CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is only added to', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END $$
    """,
    *(
        f"""
        CREATE TRIGGER only_added BEFORE {changes} ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
        """
        for table, changes in (
            ("audit", "UPDATE OR DELETE OR TRUNCATE"),
            ("audit_anchors", "UPDATE OR DELETE OR TRUNCATE"),
            ("audit_heads", "DELETE OR TRUNCATE"),
        )
    ),
)
"""For a service's migration. Never edited: what comes later is another tuple."""

DROP_V1: tuple[str, ...] = (
    "DROP TABLE audit_anchors",
    "DROP TABLE audit",
    "DROP TABLE audit_heads",
    "DROP FUNCTION refuse_audit_change",
)
"""Takes `TABLES_V1` back."""

_LOCK_NEXT = """
UPDATE audit_heads SET sequence = sequence + 1 WHERE stream = $1 RETURNING sequence, hash
"""

_OPEN = """
INSERT INTO audit_heads (stream, sequence, hash, at) VALUES ($1, 0, $2, $3)
ON CONFLICT (stream) DO NOTHING
"""

_WRITE = """
WITH head AS (UPDATE audit_heads SET hash = $9, at = $3 WHERE stream = $1)
INSERT INTO audit (stream, sequence, at, actor, action, subject, detail, previous_hash, hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What happened. Subjects are pseudonymous ids: nothing here may name a person.

    Attributes:
        actor: who did it, of a closed set, e.g. "user", "operator".
        action: `noun.verb_past`, e.g. "plan.changed".
        subject: the id of what it was done to.
        detail: flat; no floats, which have no one way to be written.
    """

    actor: str
    action: str
    subject: str
    detail: Detail


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row as it is stored."""

    stream: str
    sequence: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str
    previous_hash: bytes

    def hash(self) -> bytes:
        """SHA-256 of the canonical form, 32 bytes."""
        digest = hashlib.sha256()
        at = self.at.astimezone(UTC).isoformat(timespec="microseconds")
        texts = (self.stream, str(self.sequence), at, self.actor, self.action, self.subject)
        for field in (_FORM, *texts, self.detail, self.previous_hash):
            data = field if isinstance(field, bytes) else field.encode()
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
        return digest.digest()


def canonical_json(value: Mapping[str, object]) -> str:
    """JSON in one way only: sorted keys, no spaces, no NaN, letters as they are."""
    return json.dumps(
        dict(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


async def append(lent: Connection, stream: str, entry: AuditEntry, now: datetime) -> int:
    """Adds a row in a transaction of the caller; answers its number in the stream, from 1 on.

    The stream's head stays locked until that transaction ends: whoever else writes to the stream
    waits. So it is the last lock to take, after all that the transaction changes.

    Raises:
        InvalidInput: `stream` is not 1 to 64 of a-z, 0-9, `_` and `-`.
    """
    if not _STREAM.fullmatch(stream):
        raise InvalidInput("stream", "must be 1 to 64 of a-z, 0-9, _ and -")
    head = await lent.fetchrow(_LOCK_NEXT, stream)
    if head is None:
        await lent.execute(_OPEN, stream, FIRST_HASH, now)
        head = await lent.fetchrow(_LOCK_NEXT, stream)
    assert head is not None  # noqa: S101 (just opened, and heads are never deleted)
    row = AuditRow(
        stream=stream,
        sequence=head["sequence"],
        at=now,
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        detail=canonical_json(entry.detail),
        previous_hash=head["hash"],
    )
    await lent.execute(
        _WRITE,
        *(row.stream, row.sequence, row.at, row.actor, row.action, row.subject),
        *(row.detail, row.previous_hash, row.hash()),
    )
    return row.sequence
