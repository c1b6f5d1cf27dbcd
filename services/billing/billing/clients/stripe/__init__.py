"""Stripe through its SDK: calls and errors, prices, snapshots, webhooks."""
