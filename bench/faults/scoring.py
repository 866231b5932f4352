"""Trials in, one number for each by the canary and by output-only baselines, and how well it separates, out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.faults.auc import Scores, auc, interval
from bench.faults.second_protocol import SECOND
from bench.faults.tiny import CONTROL
from bench.faults.tracking import PROMPTS, Vector, distance
from bench.faults.trial import Trial
from introspan_collector.detect.canary.comparison import Comparison

_SETTINGS = SECOND["settings"]
Score = Callable[[Sequence[Comparison], Sequence[Vector]], float]


@dataclass(frozen=True, slots=True, eq=False)
class Separation:
    """Trials of one family and dtype against healthy ones, under several scores by name."""

    healthy: Mapping[str, Scores]
    changed: Mapping[str, Scores]

    def auc(self, name: str, drawn: NDArray[np.intp] | slice = slice(None)) -> float:
        """Area under the curve of a score; drawn picks changed models."""
        return auc(self.healthy[name], self.changed[name][drawn])

    def interval(self, name: str, beside: str = "") -> tuple[float, float]:
        """Its interval over changed models; of the difference to another score's where `beside` names one."""

        def statistic(drawn: NDArray[np.intp]) -> float:
            return self.auc(name, drawn) - (self.auc(beside, drawn) if beside else 0.0)

        resamples = SECOND["bootstrap"]["resamples"]
        return interval(len(self.changed[name]), statistic, SECOND["seed"], resamples)


def separation(
    trials: Sequence[Trial], references: Mapping[str, Vector], family: str, dtype: str
) -> Separation | None:
    """Trials whose weights differ, or controls, against all pairs of healthy rounds; None where any is missing."""
    here = [trial for trial in trials if trial.dtype == dtype]
    healthy = [trial for trial in here if trial.family == "healthy"]
    changed = [trial for trial in here if trial.family == family and (trial.is_other or family == CONTROL)]
    if dtype not in references or len(healthy) < 2 or not changed:
        return None
    scores = _scores(references[dtype])
    pairs = [(a.rounds + b.rounds, a.tracked + b.tracked) for a, b in combinations(healthy, 2)]
    return Separation(
        {name: np.array([score(*pair) for pair in pairs]) for name, score in scores.items()},
        {
            name: np.array([score(one.rounds, one.tracked) for one in changed])
            for name, score in scores.items()
        },
    )


def chosen(trials: Sequence[Trial], references: Mapping[str, Vector], names: Sequence[str]) -> str:
    """The setting with the largest mean AUC over the families and dtypes that settings are chosen on."""
    found = [
        separation(trials, references, family, dtype)
        for family in _SETTINGS["chosen_on"]
        for dtype in SECOND["dtypes"]
    ]
    known = [one for one in found if one is not None]
    means = [float(np.mean([one.auc(name) for one in known])) if known else 0.0 for name in names]
    return names[int(np.argmax(means))]


def settings(method: str) -> list[str]:
    """The names of a method's scores that are to choose from, as many for each."""
    ways = _SETTINGS["canary" if method == "canary" else "log_probability_tracking"]
    return [f"{method}: {way}" for way in ways]


OUTPUTS = "outputs of the canary"
"""The canary's score of outputs alone, at all positions of all prompts."""


def _scores(reference: Vector) -> dict[str, Score]:
    found = {f"canary: {way}": _mean_of(of) for way, of in _CANARY.items()}
    found[OUTPUTS] = _mean_of(lambda one: one.output_ratio)
    for method, prompts in (("LT", 1), ("LT4", len(PROMPTS))):
        for way in _SETTINGS["log_probability_tracking"]:
            found[f"{method}: {way}"] = _tracking(reference, way, prompts)
    return found


def _mean_of(of: Callable[[Comparison], float]) -> Score:
    return lambda rounds, _: float(np.mean([of(one) for one in rounds]))


def _tracking(reference: Vector, way: str, prompts: int) -> Score:
    return lambda _, tracked: distance(reference, tracked, way, prompts)


_CANARY: dict[str, Callable[[Comparison], float]] = {
    "ratio": lambda one: one.ratio,
    "outputs and states": lambda one: max(one.output_ratio, *one.state_ratio),
    "mean over outputs and layers": lambda one: float(np.mean([one.output_ratio, *one.state_ratio])),
}
