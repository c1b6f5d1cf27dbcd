"""What the gateway does by itself, in loops that survive whatever a round fails with."""
