"""redis-py's own published tests, with and without the guard: `make transparency`."""
