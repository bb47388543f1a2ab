"""These tests, too, leave nothing behind and log no secret."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.contract.conftest import hygiene

__all__ = ["hygiene"]


@pytest.fixture(scope="package", autouse=True)
def quick_collections() -> Iterator[None]:
    """`hygiene` collects garbage after each of 500 tests: only theirs, not the interpreter's."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
