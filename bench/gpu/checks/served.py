"""A small model with the plugin, served to fifty requests at once, in; whether every signal came, out."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.checks.outcome import Check, outcomes
from bench.gpu.engines import ABSENT, ENDPOINT, EVERYTHING, Kind, Measured, serving
from bench.gpu.models import DRAWN, drawn
from bench.gpu.scale import Scale
from introspan_wire.signals import CATALOGUE
from introspan_wire.signals import Kind as Segment

_REQUESTS, _TOKENS = 50, 12


def run(scale: Scale) -> dict[str, str]:
    """Whether the engine answers, what capture says of itself, and each signal: whether it has values."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = drawn(scale.small, Path(scratch, "model"))
        engine = {**DRAWN, "max_model_len": 512}
        kind = Kind(folder, ENDPOINT | EVERYTHING, engine, rows=True, watch="waits")
        asked = requests(_REQUESTS, _TOKENS)
        try:
            with serving(kind, scale) as served:
                said, measured = served.together(asked), served.rows()
                state, watched = served.state(), served.watched()
        except RuntimeError as error:  # which has the end of the engine's log
            return {"an engine with the plugin": f"{error}", **_without(folder, scale)}
    checks: dict[str, Check] = {
        "an engine with the plugin": lambda: None,
        "nothing switched off, no probe raised": partial(_is_well, state["status"]),
        "a row of every token": partial(_has_rows, said, measured),
        "nothing waits for the device": partial(_never_waits, watched),
    }
    for signal in CATALOGUE.values():
        if {Segment.PROMPT, Segment.DECODED} & set(signal.kinds):
            checks[f"signal {signal.name}"] = partial(_has_values, signal.name, measured)
    return outcomes(checks)


def requests(count: int, tokens: int) -> list[dict[str, Any]]:
    """Drawn prompts of different lengths; every second one's tokens are the likeliest ones, the others' are drawn."""
    draw = np.random.default_rng(5)
    return [
        {
            "name": f"request-{i}",
            "prompt": draw.integers(3, 500, 3 + 7 * i % 200).tolist(),
            "params": {"max_tokens": tokens, "temperature": float(i % 2)},
        }
        for i in range(count)
    ]


def _without(folder: Path, scale: Scale) -> dict[str, str]:
    """Whether it is the plugin's doing."""

    def start() -> None:
        with serving(Kind(folder, ABSENT, {**DRAWN, "max_model_len": 512}), scale):
            pass

    return outcomes({"the same engine without the plugin": start})


def _is_well(status: dict[str, Any]) -> None:
    said = [f"{one['signal']} ({one['reason']}): {one['detail']}" for one in status["disabled"]]
    lost = {reason: count for reason, count in status["dropped_rows"].items() if reason != "not_delivered"}
    if said or lost or status["probe_errors"]:
        raise AssertionError(
            f"{'; '.join(said) or 'nothing off'}; rows lost: {lost}; errors: {status['probe_errors']}"
        )


def _never_waits(watched: dict[str, Any]) -> None:
    """But the first step's checks, and an engine that has nothing to do."""
    if watched["later"]:
        raise AssertionError(", ".join(f"{line} {count}×" for line, count in watched["later"].items()))
    if not watched["flush_seconds"]:
        raise AssertionError("nothing was computed: nothing was looked at")


def _has_rows(said: dict[str, list[int]], measured: Measured) -> None:
    counts = {name: measured.ids.count(name) for name in said}
    missing = {
        name: (counts[name], len(tokens)) for name, tokens in said.items() if counts[name] != len(tokens)
    }
    if missing or len(said) != _REQUESTS:
        name, (rows, tokens) = next(iter(missing.items()), ("", (0, 0)))
        raise AssertionError(
            f"{len(said)} answers, {len(missing)} without all rows, as {name}: {rows} rows of {tokens} tokens"
        )


def _has_values(signal: str, measured: Measured) -> None:
    columns = [i for i, column in enumerate(measured.columns) if column[0] == signal]
    if not columns:
        raise AssertionError("no column: it is not captured")
    values = measured.values[:, columns]
    missing = np.flatnonzero(~np.isfinite(values).any(axis=0))
    if missing.size:
        where = measured.columns[columns[int(missing[0])]][1:]
        raise AssertionError(f"no value in {missing.size} of {len(columns)} columns, as {where}")
