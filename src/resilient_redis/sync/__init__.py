"""resilient_redis for `redis`: its names are those of the package."""
