"""The small real model decoding from graphs, captured, in; whether every token was measured anew out.

Requests are served at once, and come to an end at different steps: batches change, and with them whose rows are where,
and whose blocks of keys.
"""

from typing import Any

import numpy as np

from bench.gpu.engines import ENDPOINT, EVERYTHING, Kind, Measured, serving
from bench.gpu.models import prompts, real
from bench.gpu.scale import Scale

_SIGNALS = {"residual": "residual.log_rms", "attention": "attention.entropy", "output": "output.entropy"}

Rows = np.ndarray[Any, np.dtype[np.float32]]


def run(scale: Scale) -> dict[str, Any]:
    """Of each probe: rows that are missing, rows that are the one before once more, and how far from eager ones."""
    model, asked = real(), requests(prompts(scale.answers), scale.answer_tokens)
    found = {}
    for mode in ("eager", "graphs"):
        engine = {"enforce_eager": mode == "eager" or scale.is_rehearsal, "max_model_len": 1024}
        with serving(Kind(model, ENDPOINT | EVERYTHING, engine, rows=True), scale) as served:
            found[mode] = (served.together(asked), served.rows(), served.state())
    (_, _, state), disabled = found["graphs"], found["graphs"][2]["status"]["disabled"]
    return {
        "graphs": state["graphs"],
        "runner": state["runner"],
        "signals_off": len(disabled),
        "which": ", ".join(f"{one['signal']} ({one['reason']})" for one in disabled) or "none",
        **{probe: compared(signal, found["eager"], found["graphs"]) for probe, signal in _SIGNALS.items()},
    }


def requests(given: list[list[int]], tokens: int) -> list[dict[str, Any]]:
    """Greedy ones, each of other length than its neighbours."""
    return [
        {
            "name": f"answer-{i}",
            "prompt": prompt,
            "params": {"max_tokens": tokens - i % 4, "temperature": 0.0},
        }
        for i, prompt in enumerate(given)
    ]


# Any: the state of an engine, as JSON.
Told = tuple[dict[str, list[int]], Measured, dict[str, Any]]


def compared(signal: str, eager: Told, graphs: Told) -> dict[str, float]:
    """Of one signal. Rows are compared behind the same tokens alone."""
    missing = repeated = 0
    off = []
    for name, said in graphs[0].items():
        rows, eagerly = graphs[1].of(name, signal), eager[1].of(name, signal)
        missing += max(0, len(said) - len(rows)) + int(np.isnan(rows).all(axis=1).sum())
        repeated += stale(rows)
        other = eager[0][name]
        same = next(
            (i for i, pair in enumerate(zip(said, other, strict=True)) if pair[0] != pair[1]), len(said)
        )
        count = min(same + 1, len(rows), len(eagerly))
        off.append(np.abs(rows[:count] - eagerly[:count]).ravel())
    apart = np.concatenate(off)
    apart = apart[np.isfinite(apart)]
    return {
        "unmeasured_rows": missing,
        "stale_rows": repeated,
        "middle_difference_to_eager": float(np.median(apart)) if apart.size else float("inf"),
        "largest_difference_to_eager": float(apart.max()) if apart.size else float("inf"),
    }


def stale(rows: Rows) -> int:
    """How many rows are, in every column, exactly the one before. rows: [tokens, columns]."""
    return int((rows[1:] == rows[:-1]).all(axis=1).sum()) if len(rows) > 1 else 0
