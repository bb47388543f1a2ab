"""How both flavours share what waits: a generator yields each wait, and the flavour does it.

`reply = yield f` calls `f()`; on asyncio what that returns is awaited. What it returns or raises
comes back at the `yield`. (The habit is psycopg's: `generators.py`, `waiting.py`.)

**Between two yields nothing else of the same breaker is done**: on asyncio because the loop runs
one task at a time, among threads because the driver holds the breaker's lock for each step, and
never while it waits. So what is decided and what is done about it stand in one step, and whatever
may block stands behind a `yield`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")

#: Something to be waited for. Arguments are bound with `partial`.
Wait = Callable[[], Any]
#: A piece of work that waits now and then, and returns a T.
Steps = Generator[Wait, Any, T]
