"""Plan documents, and versions of plans and packs as rows that never change."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path

import asyncpg

from billing.domain.plans import (
    Catalogue,
    PackTerms,
    PackVersion,
    PlanBook,
    PlanTerms,
    PlanVersion,
    parse_plan_book,
)
from billing.domain.pricing import PriceTable
from easel_kit.db import Connection, Pool, connection, transaction
from easel_kit.errors import InvalidInput, NotFound
from easel_kit.ids import ModelKey

_COLUMNS = """
plan_key, version, name, price_cents, currency, monthly_millicredits, priority, weight,
max_running, max_waiting, queue_time_s, max_pixels, max_images, requests_per_minute, storage_bytes,
model_keys, default_factor, model_factors
"""

_LOCK_PLAN = "SELECT pg_advisory_xact_lock(hashtext('easel.billing.plan.' || $1))"

_FIND = "SELECT version FROM plan_versions WHERE plan_key = $1 AND fingerprint = $2"

_INSERT = f"""
INSERT INTO plan_versions ({_COLUMNS}, fingerprint, published_at)
SELECT $1, coalesce(max(version), 0) + 1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
       $14, $15, $16, $17, $18, $19
FROM plan_versions WHERE plan_key = $1
RETURNING version
"""  # noqa: S608 (only our own column list is put in)

_GET = f"SELECT {_COLUMNS} FROM plan_versions WHERE plan_key = $1 AND version = $2"  # noqa: S608


_LOCK_PACK = "SELECT pg_advisory_xact_lock(hashtext('easel.billing.pack.' || $1))"

_FIND_PACK = "SELECT version FROM pack_versions WHERE pack_key = $1 AND fingerprint = $2"

_INSERT_PACK = """
INSERT INTO pack_versions (pack_key, version, name, price_cents, currency, millicredits,
                           valid_days, fingerprint, published_at)
SELECT $1, coalesce(max(version), 0) + 1, $2, $3, $4, $5, $6, $7, $8
FROM pack_versions WHERE pack_key = $1
RETURNING version
"""

_GET_PACK = """
SELECT name, price_cents, currency, millicredits, valid_days
FROM pack_versions WHERE pack_key = $1 AND version = $2
"""


def read_plan_book(file: Path | None) -> PlanBook:
    """The plans of a TOML file, or those that come with the package.

    Raises:
        InvalidInput: the file cannot be read or says something wrong; names what.
    """
    source = resources.files("billing") / "plans.toml" if file is None else file
    try:
        document = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput("plans_file", str(error)) from error
    return parse_plan_book(document)


class PostgresPlans:
    """Publishes plans and remembers every version it has seen."""

    def __init__(self, pool: Pool) -> None:
        """`pool` sees billing's schema."""
        self._pool = pool
        self._known: dict[tuple[str, int], PlanVersion] = {}
        self._packs: dict[tuple[str, int], PackVersion] = {}

    async def publish(self, plans: PlanBook, now: datetime) -> Catalogue:
        """Gives each plan and pack its version: the one that says the same, or a new one."""
        async with transaction(self._pool) as lent:
            versions = [await self._version(lent, terms, now) for terms in plans.plans]
            packs = [await self._pack_version(lent, terms, now) for terms in plans.packs]
        self._known |= {(plan.key, plan.version): plan for plan in versions}
        self._packs |= {(pack.key, pack.version): pack for pack in packs}
        return Catalogue(plans.default, versions, packs)

    async def get(self, key: str, version: int) -> PlanVersion:
        """A version, on offer or not; read once, since versions never change.

        Raises:
            NotFound: it was never published.
        """
        known = self._known.get((key, version))
        if known is None:
            async with connection(self._pool) as lent:
                row = await lent.fetchrow(_GET, key, version)
            if row is None:
                raise NotFound("plan version", f"{key}/{version}")
            known = PlanVersion(row["version"], _terms(row))
            self._known[key, version] = known
        return known

    async def pack(self, key: str, version: int) -> PackVersion:
        """A version of a pack, on offer or not; read once, since versions never change.

        Raises:
            NotFound: it was never published.
        """
        known = self._packs.get((key, version))
        if known is None:
            async with connection(self._pool) as lent:
                row = await lent.fetchrow(_GET_PACK, key, version)
            if row is None:
                raise NotFound("pack version", f"{key}/{version}")
            known = PackVersion(version, PackTerms(key=key, **row))
            self._packs[key, version] = known
        return known

    @staticmethod
    async def _version(lent: Connection, terms: PlanTerms, now: datetime) -> PlanVersion:
        await lent.execute(_LOCK_PLAN, terms.key)
        version = await lent.fetchval(_FIND, terms.key, terms.fingerprint)
        if version is None:
            version = await lent.fetchval(_INSERT, *_values(terms), terms.fingerprint, now)
        return PlanVersion(version, terms)

    @staticmethod
    async def _pack_version(lent: Connection, terms: PackTerms, now: datetime) -> PackVersion:
        await lent.execute(_LOCK_PACK, terms.key)
        version = await lent.fetchval(_FIND_PACK, terms.key, terms.fingerprint)
        if version is None:
            version = await lent.fetchval(
                _INSERT_PACK,
                terms.key,
                terms.name,
                terms.price_cents,
                terms.currency,
                terms.millicredits,
                terms.valid_days,
                terms.fingerprint,
                now,
            )
        return PackVersion(version, terms)


def _values(terms: PlanTerms) -> Sequence[object]:
    return (
        terms.key,
        terms.name,
        terms.price_cents,
        terms.currency,
        terms.monthly_millicredits,
        terms.priority,
        terms.weight,
        terms.max_running,
        terms.max_waiting,
        terms.queue_time_s,
        terms.max_pixels,
        terms.max_images,
        terms.requests_per_minute,
        terms.storage_bytes,
        list(terms.model_keys),
        terms.prices.default,
        dict(terms.prices.models),
    )


def _terms(row: asyncpg.Record) -> PlanTerms:
    factors = sorted((ModelKey(key), factor) for key, factor in row["model_factors"].items())
    return PlanTerms(
        key=row["plan_key"],
        name=row["name"],
        price_cents=row["price_cents"],
        currency=row["currency"],
        monthly_millicredits=row["monthly_millicredits"],
        priority=row["priority"],
        weight=row["weight"],
        max_running=row["max_running"],
        max_waiting=row["max_waiting"],
        queue_time_s=row["queue_time_s"],
        max_pixels=row["max_pixels"],
        max_images=row["max_images"],
        requests_per_minute=row["requests_per_minute"],
        storage_bytes=row["storage_bytes"],
        model_keys=tuple(row["model_keys"]),
        prices=PriceTable(row["default_factor"], tuple(factors)),
    )
