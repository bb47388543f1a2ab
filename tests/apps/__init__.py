"""Real applications, unmodified but for one setting, through outages of a real server."""
