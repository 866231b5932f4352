"""Projections of requests in, evidence that their distribution within a class has changed out.

A bet on the maximum mean discrepancy (Shekhar & Ramdas, arXiv 2112.09162) with random Fourier features (Rahimi & Recht
2007): φ(z) = r^{−1/2}[cos Ωz; sin Ωz], Ω Gaussian of the inverse median distance, so ‖φ‖ = 1. s = ⟨φ(z) − φ̄_k, ŵ⟩,
where φ̄_k is the mean over the reference's rows of class k, and ŵ the direction in which the ticks before deviated:

    X = ½ + clip(s − e_k, ±c)/2c,  m = ½

Why the bound holds. ŵ is known before z. Whatever it is, E[s | past] ≤ ‖E φ − φ̄_k‖ ≤ ε_k for nearly all references:
ε_k is the 1 − chance quantile of ‖φ̄_k* − φ̄_k‖ over bootstrapped ones, chance = δ's part of drift / (classes · kinds).
It must hold for every direction at once, because ŵ follows φ̄_k's own error while all is well. With t = s − e_k,
clip(t, ±c) ≤ t + (−t − c)⁺ and (x)⁺ ≤ (x + c)²/4c, so

    E clip(t, ±c) ≤ ε_k − e_k + E[t²]/4c ≤ ε_k − e_k + (λ_k + (ε_k + e_k)²)/4c = 0

λ_k the largest eigenvalue of the covariance of φ in the class: the least e_k that solves the last equation is taken. A
small class, of which little is certain, so has an e_k of its own, and costs a large one nothing. Where there is no
solution ε_k is beyond c, and the class gives no evidence.

c is a number of standard deviations √λ of the widest class: a wider clip makes the same shift a smaller X, a narrower
one makes e_k large.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.live.window import Distance, Window
from introspan_collector.detect.reference.alignment import aligned_projection
from introspan_collector.detect.reference.classes import NO_CLASS
from introspan_collector.detect.reference.placement import Placement
from introspan_collector.detect.reference.reference import Population, Reference
from introspan_collector.detect.sample import Sample
from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_wire.signals import Kind

FREQUENCIES = 256
"""r."""

CLIP_DEVIATIONS = 1.5
"""c in √λ."""

_FEWEST = 64
_DRAWS = 400
_PAIRS = 2000
_WHAT = "drift"
_VERSION = 1


class Drift:
    """Follows one kind of row against one reference. tick must be called when a tick closes."""

    def __init__(self, reference: Reference, kind: Kind, seed: int = 0) -> None:
        population = reference.populations[kind]
        identity = reference.identity
        rng = np.random.default_rng(seed)
        self._population = population
        z = population.space.whiten(population.projection)
        self._frequencies = _frequencies(z, rng)
        count = int(max(population.class_id.max(initial=NO_CLASS), NO_CLASS)) + 1
        self._mean = np.full((count + 1, 2 * FREQUENCIES), np.nan)  # the last: of unknown class
        epsilon, spread, trace = np.full((3, count + 1), np.nan)
        # All classes and kinds together are wrong for one reference in a thousand.
        chance = reference.chance_of("drift", (count + 1) * len(reference.populations))
        for class_id in range(NO_CLASS, count):
            rows = z if class_id == NO_CLASS else z[population.class_id == class_id]
            rows = rows[np.isfinite(rows).all(axis=1)]
            if len(rows) >= _FEWEST:
                features = self._features(rows)
                self._mean[class_id] = features.mean(axis=0)
                epsilon[class_id] = _bootstrap(features, chance, rng)
                covariance = np.cov(features.T)
                spread[class_id] = float(np.linalg.eigvalsh(covariance)[-1])
                trace[class_id] = float(np.trace(covariance))
        self._clip = CLIP_DEVIATIONS * float(np.sqrt(np.nanmax(spread)))
        self._allowed = _allowed(epsilon, spread, self._clip)
        self._bound = np.array([0.5])
        self._streams = (
            Stream(identity.model, "", identity.adapter, "drift", kind.value, "latent.drift", -1, "away"),
        )
        self._window = Window(2 * FREQUENCIES, np.stack([epsilon, trace, spread], axis=1))
        self._direction = np.zeros(2 * FREQUENCIES)

    @property
    def distance(self) -> Distance:
        """How far the last ticks are from the reference: for people; what is tested is the evidence."""
        return self._window.distance

    def evidence(self, sample: Sample, placement: Placement) -> Evidence:
        """X of each request for one stream; NaN before the first tick, and where a class is too small."""
        projection = aligned_projection(sample, self._population.projection_layers)
        apart = self._features(self._population.space.whiten(projection)) - self._mean[placement.class_id]
        apart[~np.isfinite(projection).all(axis=1)] = np.nan
        known = np.isfinite(apart).all(axis=1)
        self._window.add(apart[known], placement.class_id[known], sample.cluster[known])
        s = np.where(
            known & self._direction.any(), np.where(known[:, None], apart, 0.0) @ self._direction, np.nan
        )
        beyond = s - self._allowed[placement.class_id]
        x = 0.5 + np.clip(beyond, -self._clip, self._clip) / (2 * self._clip)
        return Evidence(self._streams, self._bound, x[:, None], sample.cluster)

    def tick(self) -> None:
        """From now on bets go the way in which the last ticks deviated."""
        self._direction = self._window.direction
        self._window.roll()

    def snapshot(self) -> bytes:
        """What was seen lately."""
        return checkpoint.dump(_WHAT, _VERSION, {}, {**self._window.arrays(), "direction": self._direction})

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        _, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._window.restore(arrays)
        self._direction = arrays["direction"]

    def _features(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        angle = z @ self._frequencies
        return np.asarray(np.concatenate([np.cos(angle), np.sin(angle)], axis=1) / np.sqrt(FREQUENCIES))


def can_drift(population: Population) -> bool:
    """Whether there is anything to follow: enough rows with a projection."""
    measured = np.isfinite(population.projection).all(axis=1)
    return population.projection.shape[1] > 0 and int(measured.sum()) >= _FEWEST


def _frequencies(z: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    known = z[np.isfinite(z).all(axis=1)]
    first, second = rng.integers(len(known), size=(2, _PAIRS))
    squared = np.sum((known[first] - known[second]) ** 2, axis=1)
    scale = float(np.median(squared[first != second])) or 1.0
    return np.asarray(rng.standard_normal((z.shape[1], FREQUENCIES)) / np.sqrt(scale))


def _allowed(epsilon: NDArray[np.float64], spread: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    """The least e with 4c(e − ε) = λ + (ε + e)², NaN where there is none."""
    middle = 2 * clip - epsilon
    under = middle**2 - (4 * clip * epsilon + spread + epsilon**2)
    return np.where(under >= 0, middle - np.sqrt(np.maximum(under, 0.0)), np.nan)


def _bootstrap(features: NDArray[np.float64], chance: float, rng: np.random.Generator) -> float:
    """The 1 − chance quantile of ‖φ̄* − φ̄‖; rows are of different clusters each, so rows are what is drawn.

    Of a norm of many nearly normal components, which is nearly normal itself: so few draws say how far out it may be.
    """
    n = len(features)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS) / n
    apart = np.linalg.norm(weights @ features - features.mean(axis=0), axis=1)
    return float(apart.mean() + NormalDist().inv_cdf(1 - chance) * apart.std())
