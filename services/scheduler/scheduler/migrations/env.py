"""Alembic's entry: the work is in easel_kit.migrations."""

from easel_kit.migrations import run

run()
