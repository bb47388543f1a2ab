"""Where acknowledged writes wait for Redis."""

from .base import Journal
from .memory import MemoryJournal

__all__ = ["Journal", "MemoryJournal"]
