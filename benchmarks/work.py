"""What a process of one subject is told to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """`times` calls, by `tasks` tasks at once."""

    call: str
    times: int
    tasks: int = 1
    away: bool = False  # Redis is away, and a breaker is to be open all the time
    rejected: bool = False  # each call is to raise the subject's rejection

    def shorter(self) -> Work:
        """To warm up."""
        times = max(self.tasks, self.times // 4)
        return Work(self.call, times, self.tasks, self.away, self.rejected)
