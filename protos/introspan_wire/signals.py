"""The one catalogue of signals: what is measured, its formula, unit, range and where it comes from.

Wire columns, Prometheus names, docs/signals.md and tests derive from `CATALOGUE`.

Notation: h_ℓ is the residual stream entering layer ℓ, h_L the one entering the final norm, ĥ = h / rms(h);
s the scaled attention scores of one query over n attended keys, L = logsumexp(s); p the softmax of the raw
logits; q the distribution the token was drawn from; t the position of a token.
"""

from dataclasses import dataclass
from enum import StrEnum


class Axis(StrEnum):
    """What a signal has one value for."""

    LAYER = "layer"
    HEAD = "head"
    COMPONENT = "component"


class Statistic(StrEnum):
    """How the rows of a segment are reduced to one value."""

    LAST = "last"
    MEAN = "mean"
    MAX = "max"
    SUM = "sum"
    SAMPLE = "sample"
    FIRST = "first"


class Kind(StrEnum):
    """Which rows of a request a segment summarises."""

    PROMPT = "prompt"
    DECODED = "decoded"
    CANARY = "canary"
    REPREFILL = "reprefill"


@dataclass(frozen=True, slots=True)
class Signal:
    """One measured quantity.

    unit is a UCUM code; low and high bound its value (inclusive, ±inf where unbounded); decoded lists the
    statistics a decoded segment reports (others always report LAST); buckets are the upper bounds of its Prometheus
    histogram; kinds are the segments that may report it.
    """

    name: str
    axes: tuple[Axis, ...]
    formula: str
    description: str
    unit: str
    low: float
    high: float
    decoded: tuple[Statistic, ...]
    buckets: tuple[float, ...]
    source: str = ""
    kinds: tuple[Kind, ...] = (Kind.PROMPT, Kind.DECODED, Kind.CANARY)

    def statistics(self, kind: Kind) -> tuple[Statistic, ...]:
        """Statistics reported for this signal in segments of a kind."""
        if kind not in self.kinds:
            return ()
        return self.decoded if kind is Kind.DECODED else (Statistic.LAST,)


_INF = float("inf")
_LAYER = (Axis.LAYER,)
_HEAD = (Axis.LAYER, Axis.HEAD)
_MEAN = (Statistic.MEAN,)
_SUM = (Statistic.SUM,)
_NONE: tuple[Statistic, ...] = ()  # of signals that only canaries have, or only requests that were sent again

_NATS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_UNIT_INTERVAL = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_RATIO = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)
_COUNT = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

_ALL = (
    Signal(
        "attention.entropy",
        _HEAD,
        "H = L − Σ pᵢ sᵢ over the attended keys",
        "How widely a head spreads its attention. Grows with ln n: compare only at similar lengths.",
        "nat",
        0.0,
        _INF,
        _MEAN,
        _NATS,
        "Zhai et al., arXiv 2303.06296",
    ),
    Signal(
        "attention.sink_mass",
        _HEAD,
        "exp(s₀ − L)",
        "Attention weight on the first token; not measured when it lies outside a sliding window.",
        "1",
        0.0,
        1.0,
        _MEAN,
        _UNIT_INTERVAL,
        "Xiao et al., arXiv 2309.17453",
    ),
    Signal(
        "attention.recent_mass",
        _HEAD,
        "Σ pᵢ over the last 64 attended keys",
        "Attention weight on the last 64 tokens, the query's own included.",
        "1",
        0.0,
        1.0,
        _MEAN,
        _UNIT_INTERVAL,
    ),
    Signal(
        "residual.log_rms",
        _LAYER,
        "ln(‖h_ℓ‖ / √d)",
        "Size of the residual stream entering a layer.",
        "1",
        -_INF,
        _INF,
        _MEAN,
        (-4.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0),
    ),
    Signal(
        "residual.log_peak",
        _LAYER,
        "ln(max|h_ℓ| / rms(h_ℓ))",
        "How far the largest activation stands out (massive activations).",
        "1",
        0.0,
        _INF,
        (Statistic.MAX,),
        (0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0),
        "Sun et al., arXiv 2402.17762",
    ),
    Signal(
        "residual.turn",
        _LAYER,
        "log₁₀(1 − cos(ĥ_ℓ, ĥ_{ℓ+1}))",
        "How much one layer turns the residual stream.",
        "1",
        -_INF,
        0.302,
        _MEAN,
        (-5.0, -4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0),
    ),
    Signal(
        "residual.update_ratio",
        _LAYER,
        "‖h_{ℓ+1} − h_ℓ‖ / ‖h_ℓ‖",
        "How much one layer adds to the residual stream, relative to what entered it.",
        "1",
        0.0,
        _INF,
        _MEAN,
        _RATIO,
    ),
    Signal(
        "residual.velocity",
        _LAYER,
        "‖ĥ_t − ĥ_{t−1}‖ / ‖ĥ_{t−1}‖",
        "How far the normalised stream moves from one decoded token to the next.",
        "1",
        0.0,
        2.0,
        _MEAN,
        _RATIO,
    ),
    Signal(
        "residual.curvature",
        _LAYER,
        "angle(ĥ_t − ĥ_{t−1}, ĥ_{t−1} − ĥ_{t−2})",
        "How sharply the trajectory over decoded tokens bends; not measured when a step is below 1e-6 ‖ĥ‖.",
        "rad",
        0.0,
        3.1416,
        _MEAN,
        (0.5, 1.0, 1.25, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.1, 2.2, 2.4, 2.7),
        "Hosseini & Fedorenko, arXiv 2311.04930",
    ),
    Signal(
        "residual.projection",
        (Axis.LAYER, Axis.COMPONENT),
        "P ĥ_ℓ, P a fixed seeded matrix with 32 orthonormal rows",
        "Where in its space the residual stream is, as 32 numbers; input to drift detection.",
        "1",
        -_INF,
        _INF,
        (Statistic.SAMPLE,),
        (-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0),
    ),
    Signal(
        "residual.nonfinite",
        _LAYER,
        "count of NaN and ±Inf in h_ℓ",
        "Values of the residual stream that are not numbers.",
        "{value}",
        0.0,
        _INF,
        _SUM,
        _COUNT,
    ),
    Signal(
        "output.entropy",
        (),
        "−Σ p ln p, with 0 · ln 0 = 0",
        "How undecided the model is about the next token.",
        "nat",
        0.0,
        _INF,
        _MEAN,
        _NATS,
    ),
    Signal(
        "output.margin",
        (),
        "p₁ − p₂",
        "Lead of the likeliest next token over the second.",
        "1",
        0.0,
        1.0,
        _MEAN,
        _UNIT_INTERVAL,
    ),
    Signal(
        "output.logprob",
        (),
        "ln p(token)",
        "Log-probability of the token that was delivered, under the raw logits.",
        "nat",
        -_INF,
        0.0,
        _MEAN,
        (-16.0, -12.0, -8.0, -6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, -0.25, -0.1, -0.01),
    ),
    Signal(
        "output.nonfinite",
        (),
        "count of NaN and +Inf in the raw logits, before any mask; all of them where all are −Inf",
        "Logits that are not numbers. −Inf alone is how a model's own head masks tokens.",
        "{value}",
        0.0,
        _INF,
        _SUM,
        _COUNT,
    ),
    Signal(
        "output.repetition",
        (),
        "max over periods k ≤ 64 of r_k + k where that is ≥ min(3k, 168), r_k = trailing count of xᵢ = xᵢ₋ₖ",
        "Length of the periodic tail of the request's tokens; 0 when there is none.",
        "{token}",
        0.0,
        _INF,
        (Statistic.MAX,),
        _COUNT,
        "Holtzman et al., arXiv 1904.09751",
    ),
    Signal(
        "sampler.pit",
        (),
        "U = Σ_{q_v > q_y} q_v + V · Σ_{q_v = q_y} q_v, V uniform by hash",
        "Probability integral transform of the sampled token under the requested sampling parameters; "
        "uniform on [0, 1] if the sampler is right.",
        "1",
        0.0,
        1.0,
        (Statistic.FIRST, Statistic.MEAN),
        _UNIT_INTERVAL,
    ),
    Signal(
        "sampler.greedy_mismatch",
        (),
        "1 if the temperature is 0 and the token is not an arg-max of the raw logits, else 0",
        "Greedy tokens that were not the likeliest.",
        "{token}",
        0.0,
        1.0,
        _SUM,
        _COUNT,
    ),
    Signal(
        "consistency.reprefill",
        _LAYER,
        "‖P ĥ_ℓ − P ĥ′_ℓ‖ / √32, ĥ of a decoded token, ĥ′ of the same token when all up to it is a prompt",
        "How far a decoded state is from the same one computed anew without the KV cache, as a share of its length: "
        "rounding while the cache is right. Of requests that the server sent itself again "
        "(INTROSPAN_REPREFILL_RATE), in segments of their own kind.",
        "1",
        0.0,
        _INF,
        _NONE,
        (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0),
        kinds=(Kind.REPREFILL,),
    ),
)

CATALOGUE: dict[str, Signal] = {signal.name: signal for signal in _ALL}
"""Every signal of live traffic by name, in the order of docs/signals.md."""

_CANARY = (
    Signal(
        "canary.token",
        (),
        "xᵢ₊₁",
        "Id of the canary's own next token: of its text, then of those generated greedily.",
        "{token}",
        0.0,
        _INF,
        _NONE,
        (),
    ),
    Signal(
        "canary.logprob",
        (),
        "ln p(xᵢ₊₁ | x₀ … xᵢ)",
        "Log-probability of the canary's own next token, as the engine's API returned it.",
        "nat",
        -_INF,
        0.0,
        _NONE,
        (),
    ),
    Signal(
        "canary.top_logprob",
        (Axis.COMPONENT,),
        "ln p of the likeliest tokens, in falling order",
        "Log-probabilities of the 20 likeliest next tokens at one position of a canary.",
        "nat",
        -_INF,
        0.0,
        _NONE,
        (),
    ),
    Signal(
        "canary.top_token",
        (Axis.COMPONENT,),
        "ids of the likeliest tokens, in the same order",
        "The tokens to which `canary.top_logprob` belongs.",
        "{token}",
        0.0,
        _INF,
        _NONE,
        (),
    ),
)

KNOWN: dict[str, Signal] = CATALOGUE | {signal.name: signal for signal in _CANARY}
"""Every signal that may be on the wire: those of live traffic, and those that only canaries have."""

PROJECTION_COMPONENTS = 32
"""Number of components of `residual.projection`."""

SEGMENT_TOKENS = (64, 128, 256, 512)
"""Tokens that the first decoded segments of a request span at most; later ones as the last of these."""

PIT_TAIL = 0.05
"""Tokens of which U (`sampler.pit`) is below this, or above 1 minus this, are counted in a producer's status."""

RECENT_KEYS = 64
"""Number of keys that `attention.recent_mass` covers."""

TOP_TOKENS = 20
"""Number of components of `canary.top_logprob` and `canary.top_token`."""

REPETITION_PERIODS = 64
"""Longest period that `output.repetition` looks for, in tokens."""

REPETITION_LONG_TOKENS = 168
"""A periodic tail of so many tokens counts even if it is shorter than three of its periods."""
