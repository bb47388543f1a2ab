"""Every kind of connection, pool and way of talking, through an outage."""
