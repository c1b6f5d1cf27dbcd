"""Use cases of the gateway, over the ports they need."""
