"""The worker's use cases over its ports: take work, run it, report it, leave in good order."""
