"""Adapters: SQL for Postgres, Lua for Redis."""
