"""One database for the stack, in it a role and a schema for each service and no way across."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from easel_kit.errors import InvalidInput
from easel_local.process import StartFailed

DATABASE = "easel"
_DEADLINE_S = 30.0
_NAME = re.compile(r"[a-z][a-z_]*")
_SECRET = re.compile(r"[A-Za-z0-9_-]+")


def service_url(admin_url: str, role: str, password: str) -> str:
    """The address of the stack's database for one service, from the superuser's address."""
    parts = urlsplit(admin_url)
    place = f"{parts.hostname}:{parts.port or 5432}"
    who = f"{quote(role)}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{who}@{place}", path=f"/{DATABASE}"))


async def prepare_database(admin_url: str, passwords: Mapping[str, str]) -> None:
    """Create what is missing; each role owns the schema of its name and sees no other.

    Args:
        admin_url: of a role that may create databases and roles.
        passwords: by role; they are set anew each time.

    Raises:
        InvalidInput: a name or a password has characters that need quoting.
        StartFailed: the server does not let us.
    """
    for role, password in passwords.items():
        if not _NAME.fullmatch(role) or not _SECRET.fullmatch(password):
            raise InvalidInput("passwords", "names and passwords are plain words")
    url = urlunsplit(urlsplit(admin_url)._replace(path=f"/{DATABASE}"))
    try:
        connection = await asyncpg.connect(admin_url, timeout=_DEADLINE_S)
        try:
            known = "SELECT 1 FROM pg_database WHERE datname = $1"
            if not await connection.fetchval(known, DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
            for role, password in passwords.items():
                await _prepare_role(connection, role, password)
        finally:
            await connection.close(timeout=_DEADLINE_S)
        connection = await asyncpg.connect(url, timeout=_DEADLINE_S)
        try:
            for role in passwords:
                await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {role} AUTHORIZATION {role}")
        finally:
            await connection.close(timeout=_DEADLINE_S)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise StartFailed(f"cannot prepare the database: {error}") from error


async def _prepare_role(
    connection: asyncpg.Connection[asyncpg.Record], role: str, password: str
) -> None:
    exists = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
    verb = "ALTER" if exists else "CREATE"
    await connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD '{password}'")
    # So that a role of another owner of this server may still give its schema to it.
    await connection.execute(f"GRANT {role} TO CURRENT_USER")
    await connection.execute(f"ALTER ROLE {role} SET search_path = {role}")
