"""These tests, too, run in both flavours, leave nothing behind and log no secret."""

from __future__ import annotations

from tests.contract.conftest import hygiene, quick_collections

__all__ = ["hygiene", "quick_collections"]
