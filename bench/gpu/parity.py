"""The small real model, served and captured, in; how far each signal is from transformers' own on the device, out."""

from typing import Any

import numpy as np

from bench.gpu.engines import ENDPOINT, EVERYTHING, Kind, Measured, serving
from bench.gpu.models import prompts, real
from bench.gpu.reference import Float, Reference
from bench.gpu.scale import Scale


def run(scale: Scale) -> dict[str, Any]:
    """By signal the largest and the middle difference, and how many values were compared."""
    model, asked = real(), prompts(scale.answers)
    kind = Kind(model, ENDPOINT | EVERYTHING, {"enforce_eager": True, "max_model_len": 1024}, rows=True)
    with serving(kind, scale) as served:
        said = served.answers(asked, scale.answer_tokens)["tokens"]
        measured, state = served.rows(), served.state()
    reference = Reference(model, scale.dtype)  # only now: the engine has given the device back
    captured = {column[0] for column in measured.columns}
    differences: dict[str, list[Float]] = {name: [] for name in scale.tolerances if name in captured}
    for i, (prompt, answer) in enumerate(zip(asked, said, strict=True)):
        expected = reference.measure([*prompt, *answer], len(prompt))
        for name, found in differences.items():
            found.append(difference(measured, f"answer-{i}", name, expected[name]))
    return {name: _summary(differences.get(name, [])) for name in scale.tolerances} | {
        "signals_off": len(state["status"]["disabled"]),
        "which": ", ".join(f"{one['signal']} ({one['reason']})" for one in state["status"]["disabled"])
        or "none",
        "runner": state["runner"],
    }


def difference(measured: Measured, request: str, signal: str, expected: Float) -> Float:
    """Absolute differences of one request's rows, wherever capture measured one. Raises where rows are missing."""
    columns = [column for column in measured.columns if column[0] == signal]
    got = measured.of(request, signal)
    if len(got) != len(expected) or not columns:
        raise ValueError(
            f"{signal} of {request} has {len(got)} rows of {len(columns)} columns, not {len(expected)}"
        )
    wanted = np.stack(
        [expected[(slice(None), *(axis for axis in column[1:3] if axis >= 0))] for column in columns], axis=1
    )
    off: Float = np.abs(got - wanted).ravel()
    counts = np.isfinite(off) | (np.isfinite(got) != np.isfinite(wanted)).ravel()
    compared: Float = off[counts]
    return compared


def _summary(found: list[Float]) -> dict[str, float | str]:
    off = np.concatenate(found) if found else np.zeros(0)
    if not off.size:
        return {"largest": "not captured", "values": 0}
    # What only one side has a value for is as far off as can be.
    largest = float(np.nan_to_num(off, nan=np.inf).max())
    return {"largest": largest, "middle": float(np.nanmedian(off)), "values": int(off.size)}
