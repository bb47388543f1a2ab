"""The command line: `resilient-redis rehearse`, and the oracle that judges it."""
