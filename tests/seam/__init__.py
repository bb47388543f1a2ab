"""What of redis-py's inside is leaned on, and whether it is still there."""
