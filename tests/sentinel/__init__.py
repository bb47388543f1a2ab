"""Sentinel: an endpoint that is a service, through outages and failovers."""
