"""The real soak: a real server, a chaos proxy, random faults, and the oracle's verdict."""
