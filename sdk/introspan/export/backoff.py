"""How often a batch was tried in, how long to wait before trying again out."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential and jittered: first × 2ⁿ seconds, at most longest, each spread by ± jitter."""

    first_seconds: float = 0.25
    longest_seconds: float = 5.0
    jitter: float = 0.2

    def seconds(self, tries: int, wish_seconds: float | None, rng: random.Random) -> float:
        """The wait after that many failed tries (≥ 1), never below what the collector wished for."""
        growth = min(self.longest_seconds, self.first_seconds * 2.0 ** min(tries - 1, 32))
        wait = growth * rng.uniform(1 - self.jitter, 1 + self.jitter)
        if wish_seconds is None:
            return wait
        # Many producers get the same wish; spreading upwards keeps them from coming back as one.
        return max(wait, wish_seconds * rng.uniform(1, 1 + self.jitter))
