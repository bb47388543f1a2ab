"""The command line: `resilient-redis rehearse`, and the oracle that judges it."""

from __future__ import annotations


def main() -> int:
    """The entry point of the `resilient-redis` command."""
    from .app import main as run  # noqa: PLC0415 - the oracle is used without all of this

    return run()
