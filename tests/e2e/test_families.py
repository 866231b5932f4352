"""Parity over the forms a decoder can take: fused and plain norms, windows, multipliers, experts, parallel residual."""

from pathlib import Path

import numpy as np
import pytest
from comparison import Comparison
from engine import EVERYTHING, Call, Run, run
from reference import HuggingFace
from tiny_models import FAMILIES, SERVED, VOCABULARY, write

from introspan.capture.stream.projection import orthogonal_map

HIDDEN_SIZE = 128
STATIC = "import introspan.capture.taps.static_rows as rows; rows._ON_HOST = frozenset()"


def _calls() -> list[Call]:
    draw = np.random.default_rng(3)
    lengths = (1, 7, 60, 130, 300)
    sampling = (
        {"temperature": 0.0},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 0.8, "top_k": 20},
        # Tied random weights repeat their input otherwise, and nothing would move.
        {"temperature": 0.0, "repetition_penalty": 10.0},
    )
    return [
        Call(
            f"request {i}",
            draw.integers(3, VOCABULARY, length).tolist(),
            sampling[i % 4] | {"max_tokens": 10, "ignore_eos": True},
            at=i,
        )
        for i, length in enumerate(lengths * 2)
    ]


@pytest.mark.parametrize(("family", "eager"), [*((family, True) for family in FAMILIES), ("llama", False)])
def test_every_value_equals_the_reference(family, eager, tmp_path):
    _compare(family, tmp_path, eager=eager)


@pytest.mark.slow  # starts, and compiles, as often again
@pytest.mark.parametrize("eager", [True, False])
def test_taps_that_a_graph_can_record_give_the_same_values(eager, tmp_path):
    _compare("llama", tmp_path, eager=eager, before=STATIC)


def _compare(family: str, tmp_path: Path, *, eager: bool, before: str = "") -> None:
    model = write(family, tmp_path / family)
    calls = _calls()
    engine = SERVED | {
        "max_model_len": 1024,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 128,
        "enforce_eager": eager,
    }
    result = run(Run(str(model), calls, engine, EVERYTHING, before=before), tmp_path)
    assert result.status["disabled"] == [], result.stderr[-2000:]
    assert result.status["probe_errors"] == 0, result.stderr[-2000:]
    comparison = Comparison(result, HuggingFace(model), HIDDEN_SIZE)
    projection = orthogonal_map(HIDDEN_SIZE).astype(np.float64)
    for call in calls:
        comparison.add(call, call.id, result.tokens[call.id][0], projection)
    assert not comparison.failures()
