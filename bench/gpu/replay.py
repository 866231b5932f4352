"""The small real model decoding from graphs, captured, in; whether every token was measured anew out."""

from typing import Any

import numpy as np

from bench.gpu.engines import ENDPOINT, EVERYTHING, Kind, Measured, serving
from bench.gpu.models import prompts, real
from bench.gpu.scale import Scale

_SIGNAL = "residual.log_rms"


def run(scale: Scale) -> dict[str, Any]:
    """Rows that are missing, rows that are the one before once more, and how far values are from eager ones."""
    model, asked = real(), prompts(scale.answers)
    found = {}
    for mode in ("eager", "graphs"):
        engine = {"enforce_eager": mode == "eager" or scale.is_rehearsal, "max_model_len": 1024}
        with serving(Kind(model, ENDPOINT | EVERYTHING, engine, rows=True), scale) as served:
            said = served.answers(asked, scale.answer_tokens)["tokens"]
            found[mode] = (said, served.rows(), served.state())
    said, measured, state = found["graphs"]
    names = [f"answer-{i}" for i in range(len(asked))]
    return {
        "graphs": state["graphs"],
        "runner": state["runner"],
        "unmeasured_rows": sum(
            max(0, len(answer) - len(measured.of(name, _SIGNAL)))
            for name, answer in zip(names, said, strict=True)
        ),
        "stale_rows": sum(stale(measured.of(name, _SIGNAL)) for name in names),
        "signals_off": len(state["status"]["disabled"]),
        "middle_difference_to_eager": _to_eager(names, found["eager"], found["graphs"]),
    }


def stale(rows: np.ndarray[Any, np.dtype[np.float32]]) -> int:
    """How many rows are, at every layer, exactly the one before. rows: [tokens, layers]."""
    return int((rows[1:] == rows[:-1]).all(axis=1).sum()) if len(rows) > 1 else 0


def _to_eager(names: list[str], eager: tuple[Any, Measured, Any], graphs: tuple[Any, Measured, Any]) -> float:
    """Of rows behind the same tokens."""
    off = []
    for name, mine, other in zip(names, eager[0], graphs[0], strict=True):
        same = next(
            (i for i, pair in enumerate(zip(mine, other, strict=True)) if pair[0] != pair[1]), len(mine)
        )
        left, right = (one[1].of(name, _SIGNAL)[:same] for one in (eager, graphs))
        count = min(len(left), len(right))
        off.append(np.abs(left[:count] - right[:count]).ravel())
    return float(np.median(np.concatenate(off)))
