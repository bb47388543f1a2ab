"""resilient_redis for `redis`."""
