"""Alembic, one chain and one schema per service: SQL in `op.execute`, no models.

A service keeps `migrations/env.py` that calls `run`, and `migrations/versions/*.py`.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from alembic import command, context
from alembic.config import Config
from sqlalchemy.ext.asyncio import create_async_engine


def config(folder: Path, url: str, schema: str) -> Config:
    """Alembic's configuration for one service, without an ini file."""
    settings = Config()
    settings.set_main_option("script_location", str(folder).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    settings.attributes["url"] = url
    settings.attributes["schema"] = schema
    return settings


def upgrade(folder: Path, url: str, schema: str, revision: str = "head") -> None:
    """Brings a service's schema to `revision`. Blocks; idempotent; safe to run twice at once.

    Args:
        folder: the service's `migrations`.
        url: `postgresql://…` of a role that owns the schema or may create it.
        schema: the service's own.
        revision: an Alembic revision.
    """
    command.upgrade(config(folder, url, schema), revision)


def downgrade(folder: Path, url: str, schema: str, revision: str = "base") -> None:
    """Takes a service's schema back to `revision`. For tests and emergencies."""
    command.downgrade(config(folder, url, schema), revision)


def _migrate(connection: sqlalchemy.Connection, schema: str) -> None:
    # one migration at a time per schema, over all processes
    connection.execute(
        sqlalchemy.text("SELECT pg_advisory_lock(hashtext('easel.migrate.' || :schema))"),
        {"schema": schema},
    )
    if not connection.execute(
        sqlalchemy.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema"), {"schema": schema}
    ).scalar():
        connection.execute(sqlalchemy.schema.CreateSchema(schema))
    connection.execute(sqlalchemy.text(f'SET search_path TO "{schema}"'))
    connection.commit()
    context.configure(
        connection=connection, version_table_schema=schema, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


async def _online(url: str, schema: str) -> None:
    engine = create_async_engine(
        sqlalchemy.make_url(url).set(drivername="postgresql+asyncpg"),
        poolclass=sqlalchemy.NullPool,
    )
    async with engine.connect() as connection:
        await connection.run_sync(_migrate, schema)
        await connection.commit()
    await engine.dispose()


def run() -> None:
    """The body of a service's `env.py`.

    Alembic calls it without a running loop; where the caller has one, it runs in its own thread.
    """
    import asyncio  # noqa: PLC0415 (only the migration command needs it)
    import threading  # noqa: PLC0415

    attributes = context.config.attributes
    failure: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(_online(attributes["url"], attributes["schema"]))
        except BaseException as error:  # noqa: BLE001 (handed to the calling thread)
            failure.append(error)

    thread = threading.Thread(target=work, name="migrate")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
