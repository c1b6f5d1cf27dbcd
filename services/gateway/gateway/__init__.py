"""Easel's door: REST, identity, the user's library. It holds no queue and no money."""
