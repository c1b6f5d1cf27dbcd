"""Billing's gRPC face."""
