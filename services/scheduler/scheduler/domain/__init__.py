"""Plain data and rules of the queue: no I/O, no clock, no driver."""
