"""The settings of a breaker, checked."""

from __future__ import annotations

from dataclasses import dataclass

from tenacity.wait import wait_base

from .journal import Journal
from .policy import Policy


@dataclass(frozen=True, slots=True)
class Settings:
    """See `resilient_redis.asyncio.RedisCircuitBreaker` for their meaning. Times in seconds."""

    failure_threshold: int
    recovery_timeout: float
    policy: Policy | None
    journal: Journal | None
    deadline: float
    probe_timeout: float
    drain_wait: float
    batch_size: int
    name: str | None
    watermark_prefix: str
    recovery_wait: wait_base | None
    failure_rate: float | None
    failure_window: float
    minimum_calls: int

    def __post_init__(self) -> None:
        for option in ("recovery_timeout", "deadline", "probe_timeout", "failure_window"):
            if not getattr(self, option) > 0:  # not a number, too
                raise ValueError(f"{option} must be above 0 seconds, not {getattr(self, option)}")
        if not self.drain_wait >= 0:
            raise ValueError(f"drain_wait must be at least 0 seconds, not {self.drain_wait}")
        if self.failure_rate is not None and not 0 < self.failure_rate <= 1:
            raise ValueError(f"failure_rate must be above 0 and at most 1, not {self.failure_rate}")
        if self.minimum_calls < 1:
            raise ValueError(f"minimum_calls must be at least 1, not {self.minimum_calls}")
        if not 1 <= self.batch_size <= 1000:
            raise ValueError(f"batch_size must be 1 to 1000, not {self.batch_size}")
