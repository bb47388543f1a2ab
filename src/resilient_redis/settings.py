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

    def __post_init__(self) -> None:
        for option in ("recovery_timeout", "deadline", "probe_timeout"):
            if getattr(self, option) <= 0:
                raise ValueError(f"{option} must be above 0 seconds, not {getattr(self, option)}")
        if self.drain_wait < 0:
            raise ValueError(f"drain_wait must be at least 0 seconds, not {self.drain_wait}")
        if not 1 <= self.batch_size <= 1000:
            raise ValueError(f"batch_size must be 1 to 1000, not {self.batch_size}")
