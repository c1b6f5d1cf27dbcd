"""Adapters for services outside."""
