"""Use cases of the scheduler, over the ports they need."""
