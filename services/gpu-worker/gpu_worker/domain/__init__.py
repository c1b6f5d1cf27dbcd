"""What a worker talks about: plain data and pure functions."""
