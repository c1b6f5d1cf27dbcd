"""What the gateway talks about, as plain data and pure functions."""
