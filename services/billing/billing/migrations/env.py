"""Alembic's way in; everything is in the kit."""

from easel_kit.migrations import run

run()
