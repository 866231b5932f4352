"""Healthy rounds in, how far others are off in units of each log-probability's own spread, out.

Tried beside the product's canary, which takes the root mean square of a question's, and the largest of questions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary.answer import Answer
from introspan_collector.detect.canary.baseline import Baseline, outputs_of
from introspan_collector.detect.canary.place import mean, rms

_LEAST = 0.1  # of the median spread: what never varied among the healthy would otherwise outweigh everything

Apart = NDArray[np.float64]


class Spread:
    """Knows how much each log-probability of each question varies from healthy round to healthy round."""

    def __init__(self, baseline: Baseline, healthy: Sequence[Mapping[str, Answer]]) -> None:
        self._questions = baseline.questions
        found = np.stack([self._apart(one) for one in healthy])
        spread = rms(found - mean(found), (0,))
        self._spread = np.maximum(spread, _LEAST * float(np.median(spread[spread > 0])))

    def of(self, answers: Mapping[str, Answer]) -> float:
        """The mean distance from the healthy mean, in spreads."""
        distance = np.abs(self._apart(answers)) / self._spread
        return float(distance[np.isfinite(distance)].mean())

    def _apart(self, answers: Mapping[str, Answer]) -> Apart:
        """Differences from the healthy mean, of all questions; NaN behind a token that differs."""
        found = []
        for name, question in self._questions.items():
            outputs = answers[name].outputs
            given = outputs_of(outputs, question.top_token)
            n = min(len(given), len(question.output_mean))
            differs = np.flatnonzero(outputs.token[:n] != question.token[:n])
            until = int(differs[0]) if differs.size else n
            apart = np.full(question.output_mean.shape, np.nan)
            apart[:until] = given[:until] - question.output_mean[:until]
            found.append(apart.ravel())
        return np.concatenate(found)
