"""Adapters to the scheduler's work stream and to the object store."""
