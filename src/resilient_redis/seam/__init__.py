"""Every private name and version difference of redis-py that this library leans on."""
