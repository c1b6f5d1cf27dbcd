"""Whether a service's schema is at its newest revision, asked without loading Alembic.

That costs a start seconds on a small machine, and nearly every start finds the schema current.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import asyncpg

_DEADLINE_S = 10.0


async def is_current(url: str, package: str) -> bool:
    """Whether the schema named as the package is at the head of its migrations.

    False also when that cannot be told: the service's own command knows better then.
    """
    head = head_of(package)
    if head is None:
        return False
    try:
        connection = await asyncpg.connect(url, timeout=_DEADLINE_S)
        try:
            found = await connection.fetch(f"SELECT version_num FROM {package}.alembic_version")  # noqa: S608 - a name of our table of services
        finally:
            await connection.close(timeout=_DEADLINE_S)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False
    return [row["version_num"] for row in found] == [head]


def head_of(package: str) -> str | None:
    """The newest revision in the package's ``migrations/versions``, if there is exactly one."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "migrations" / "versions"
    revisions: set[str] = set()
    superseded: set[str] = set()
    for file in folder.glob("*.py"):
        for name, value in _constants(ast.parse(file.read_text())):
            if name == "revision":
                revisions.add(value)
            elif name == "down_revision":
                superseded.add(value)
    heads = revisions - superseded
    return heads.pop() if len(heads) == 1 else None


def _constants(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Names at the top of a module that are given a plain string, with or without a type."""
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(value))):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(value))):
                yield name, value
