"""Alembic, one chain and one schema per service: SQL in `op.execute`, no models.

A service keeps `migrations/env.py` that calls `run`, and `migrations/versions/*.py`.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from alembic import command, context
from alembic.config import Config
from sqlalchemy.schema import CreateSchema


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


def run() -> None:
    """The body of a service's `env.py`: one migration at a time per schema, over all processes."""
    attributes = context.config.attributes
    url, schema = sqlalchemy.make_url(attributes["url"]), attributes["schema"]
    engine = sqlalchemy.create_engine(
        url.set(drivername="postgresql+psycopg"), poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection:
        connection.execute(
            sqlalchemy.text("SELECT pg_advisory_lock(hashtext('easel.migrate.' || :schema))"),
            {"schema": schema},
        )
        known = sqlalchemy.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema")
        if not connection.execute(known, {"schema": schema}).scalar():
            connection.execute(CreateSchema(schema))
        connection.execute(sqlalchemy.text(f'SET search_path TO "{schema}"'))
        connection.execute(sqlalchemy.text("SET lock_timeout = '5s'"))  # never queue up traffic
        connection.commit()
        context.configure(
            connection=connection, version_table_schema=schema, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()
