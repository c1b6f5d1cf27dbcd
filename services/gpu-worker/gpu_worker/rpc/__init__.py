"""The worker's own face, for operators and the gateway's model endpoints."""
