"""Installs procrastinate's tables."""

from bench.queue.peers.procrastinate.tasks import app

with app.open():
    app.schema_manager.apply_schema()
