"""A deterministic simulation: unmodified redis-py and our shell, a made-up network and server."""
