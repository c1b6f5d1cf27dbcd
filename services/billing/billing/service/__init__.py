"""Billing's use cases, over the ports they need."""
