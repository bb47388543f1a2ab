"""The supported versions of Python, redis-py and the servers, each with each: `make matrix`."""
