"""The small real model drawing tokens, captured, in; whether the sampler's signals say that it is right, out."""

from typing import Any

import numpy as np
from scipy import stats

from bench.gpu.engines import ENDPOINT, EVERYTHING, Kind, Measured, serving
from bench.gpu.models import prompts, real
from bench.gpu.scale import Scale

_DRAWN_EACH, _GREEDY_EACH = 8, 2
"""Requests with each prompt."""

_WAYS: tuple[dict[str, Any], ...] = (
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 40},
    {"temperature": 1.0, "min_p": 0.05},
)


def run(scale: Scale) -> dict[str, Any]:
    """How far `sampler.pit` is from uniform (Kolmogorov, Smirnov); greedy tokens that were not the likeliest."""
    asked = requests(prompts(scale.answers), scale.answer_tokens)
    kind = Kind(
        real(),
        ENDPOINT | EVERYTHING,
        {"enforce_eager": scale.is_rehearsal, "max_model_len": 1024},
        rows=True,
    )
    with serving(kind, scale) as served:
        said, measured, state = served.together(asked), served.rows(), served.state()
    drawn, greedy = ([name for name in said if name.startswith(kind_of)] for kind_of in ("drawn", "greedy"))
    pit, mismatch = _of(measured, drawn, "sampler.pit"), _of(measured, greedy, "sampler.greedy_mismatch")
    return {
        "pit": uniformity(pit) | {"unmeasured": int(np.isnan(pit).sum())},
        "greedy": {
            "mismatches": int(np.nansum(mismatch)),
            "values": int(np.isfinite(mismatch).sum()),
            "unmeasured": int(np.isnan(mismatch).sum()),
        },
        "skipped": state["status"]["sampler_rows_skipped"],
        "runner": state["runner"],
        "graphs": state["graphs"],
    }


# Any: JSON.
def requests(given: list[list[int]], tokens: int) -> list[dict[str, Any]]:
    """Of each prompt several whose tokens are drawn, in every way by turns, and several that are greedy."""
    drawn = [
        {
            "name": f"drawn-{i}-{n}",
            "prompt": prompt,
            "params": _WAYS[n % len(_WAYS)] | {"max_tokens": tokens},
        }
        for i, prompt in enumerate(given)
        for n in range(_DRAWN_EACH)
    ]
    greedy = [
        {"name": f"greedy-{i}-{n}", "prompt": prompt, "params": {"max_tokens": tokens, "temperature": 0.0}}
        for i, prompt in enumerate(given)
        for n in range(_GREEDY_EACH)
    ]
    return [*drawn, *greedy]


Values = np.ndarray[Any, np.dtype[np.float32]]


def uniformity(values: Values) -> dict[str, float]:
    """The largest distance to the uniform distribution, and how probable one as large is by chance."""
    found = values[np.isfinite(values)]
    if not found.size:
        return {"distance": 1.0, "p": 0.0, "values": 0}
    result = stats.kstest(found, "uniform")
    return {"distance": float(result.statistic), "p": float(result.pvalue), "values": int(found.size)}


def _of(measured: Measured, names: list[str], signal: str) -> Values:
    found: Values = np.concatenate([measured.of(name, signal).ravel() for name in names])
    return found
