"""Counts of drawn tokens by producer in, evidence out that their sampler is not the one that was asked for.

`sampler.pit` U is uniform on [0, 1] given all that was drawn before, if the sampler is right, whatever the traffic
is. A producer counts the tokens of which it measured U, those with U below .05 and above .95, and sums U. What a new
message adds to the counts multiplies M of its streams by

    (1 + λ(1 − m))^tail · (1 − λm)^(n − tail)          m = .05, λ = c/m, tail: low or high
    exp(±η(ΣU − n/2)) · ((η/2) / sinh(η/2))^n           η = 2c, for U and 1 − U

which is a product over tokens of factors with expectation 1 each: E exp(η(U − ½)) = sinh(η/2) / (η/2). So

- every measured token is a step of its own: a wrong temperature is found after as many as if each came alone;
- which tokens are counted never depends on their own U: of requests chosen by hash, those at places chosen by hash;
- when they are counted neither. A message holds *all* tokens drawn up to a moment, so M at that moment is the
  martingale stopped there, however that moment was chosen. Were they taken from segments as these arrive, M at a
  moment would lack the answers still open: an end of text is drawn by U, so that answers which ended lie elsewhere
  than those that go on, and a burst of answers begun together would look like a wrong sampler
  (tests/unit/test_false_alarms.py has both).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.sequential.e_detector import CAUTIONS
from introspan_collector.detect.sequential.evidence import Growth, Stream
from introspan_collector.model import Batch
from introspan_wire.signals import PIT_TAIL

PIT = "sampler.pit"
MOST_PRODUCERS = 1 << 14

_SIDES = ("low", "high", "up", "down")
_BOUND = np.array([PIT_TAIL, PIT_TAIL, 0.5, 0.5])
_WHAT = "draws"
_VERSION = 1


class _Counts(NamedTuple):
    tokens: float
    low: float
    high: float
    total: float


class Draws:
    """Remembers the counts of every producer, the ones heard last up to MOST_PRODUCERS, and gives what is new."""

    def __init__(self) -> None:
        self._counts: dict[bytes, _Counts] = {}

    def growth(self, batch: Batch) -> Growth | None:
        """Of ln M, by the tokens drawn since the producer's last message; None where there are none.

        What a producer drew before its first message that is seen counts only where that is its very first: whoever
        was forgotten and comes again must not count twice.
        """
        status = batch.status
        if status is None:
            return None
        now = _Counts(status.sampler_tokens, status.sampler_low, status.sampler_high, status.sampler_sum)
        before = self._counts.pop(batch.producer, None)
        if before is None and batch.sequence == 1:
            before = _Counts(0.0, 0.0, 0.0, 0.0)
        while len(self._counts) >= MOST_PRODUCERS:
            del self._counts[next(iter(self._counts))]
        self._counts[batch.producer] = now
        if before is None or now.tokens == before.tokens:
            return None
        new = np.subtract(now, before)
        if (new < 0).any():  # counts never fall: it is not who it says
            return None
        streams = _streams(batch.origin.model, batch.origin.replica)
        return Growth(streams, _BOUND, log_growth(*new))

    def snapshot(self) -> bytes:
        """The whole state."""
        producers = np.frombuffer(b"".join(self._counts), np.uint8)
        counts = np.array(list(self._counts.values()), np.float64).reshape(-1, 4)
        return checkpoint.dump(_WHAT, _VERSION, {}, {"producers": producers, "counts": counts})

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        _, arrays = checkpoint.load(_WHAT, _VERSION, data)
        producers, counts = arrays["producers"].tobytes(), arrays["counts"].tolist()
        width = len(producers) // max(len(counts), 1)
        self._counts = {producers[i * width : (i + 1) * width]: _Counts(*one) for i, one in enumerate(counts)}


def log_growth(
    tokens: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    total: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Growth of ln M of the four sides, float64 [..., 4, cautions], by so many tokens, those in the tails, and ΣU."""
    n = np.asarray(tokens)[..., None]
    hit, miss = np.log1p(CAUTIONS / PIT_TAIL * (1 - PIT_TAIL)), np.log1p(-CAUTIONS)
    tails = [
        tail * hit + (n - tail) * miss for tail in (np.asarray(low)[..., None], np.asarray(high)[..., None])
    ]
    centred = 2 * CAUTIONS * (np.asarray(total)[..., None] - n / 2)
    mean = n * np.log(np.sinh(CAUTIONS) / CAUTIONS)
    return np.stack([*tails, centred - mean, -centred - mean], axis=-2)


@lru_cache(maxsize=1024)
def _streams(model: str, replica: str) -> tuple[Stream, ...]:
    # Of no adapter: an engine has one sampler for all of them.
    return tuple(Stream(model, replica, "", "sampler", "", PIT, -1, side) for side in _SIDES)
