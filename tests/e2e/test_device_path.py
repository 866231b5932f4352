"""What is computed on a GPU, by Triton's interpreter in a real engine: every value equals what Hugging Face computes.

The engine runs ahead, its taps are those that a graph can record, rows are computed by the kernels and come over later.
"""

import numpy as np
from comparison import Comparison
from engine import EVERYTHING, Call, Run, run
from reference import HuggingFace
from test_late_tokens import ASYNCHRONOUS
from tiny_models import SERVED, VOCABULARY, write

from introspan.capture.stream.projection import orthogonal_map

HIDDEN_SIZE = 128

# The host is taken for a device: what decides that are two sets of names. Triton was imported by vLLM already, and
# whether it interprets is settled then. A CPU's cache holds keys as no GPU's does, so it is laid out anew to be read.
AS_ON_A_DEVICE = f"""
import os, sys
os.environ["TRITON_INTERPRET"] = "1"
for name in [name for name in sys.modules if name.split(".")[0] == "triton" and not name.startswith("triton._C")]:
    del sys.modules[name]

import torch
import introspan.capture.attention.groups as groups
import introspan.capture.attention.kv_layout as kv_layout
import introspan.capture.kernels.choice as choice
import introspan.capture.taps.static_rows as static_rows

static_rows._ON_HOST = frozenset()
choice._DEVICES = frozenset({{"cpu"}})
kv_layout._STRIDED |= {{"CPUAttentionBackendImpl"}}
packed = groups.cache_of

def cache_of(tap):
    cache = packed(tap)
    if cache.dim() != 4:
        return cache
    blocks, heads, size, both = cache.shape
    halves = cache.view(blocks, heads, 2, -1)
    keys = halves[:, :, 0].view(blocks, heads, both // 2, size).transpose(2, 3)
    return torch.cat([keys, halves[:, :, 1].view(blocks, heads, size, both // 2)], dim=3)

groups.cache_of = cache_of

import introspan.capture.warm_up as warming

warm_up = warming.warm_up

def telling(*probes):
    warm_up(*probes)
    print("kernels were compiled", *(type(probe).__name__ for probe in probes), file=sys.stderr)

warming.warm_up = telling
{ASYNCHRONOUS}
"""


def test_every_value_that_kernels_compute_in_an_engine_equals_the_reference(tmp_path):
    model = write("llama", tmp_path / "tiny")
    draw = np.random.default_rng(3)
    sampling = (
        {"temperature": 0.0},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 0.8, "top_k": 20},
        {"temperature": 1.0, "min_p": 0.02, "top_k": 50},
    )
    calls = [
        Call(
            f"request {i}",
            draw.integers(3, VOCABULARY, length).tolist(),
            sampling[i % 4] | {"max_tokens": 6, "ignore_eos": True},
            at=i,
        )
        for i, length in enumerate((1, 60, 130, 20))
    ]
    engine = SERVED | {
        "max_model_len": 512,
        "max_num_seqs": 6,
        "max_num_batched_tokens": 128,
        "num_gpu_blocks_override": 24,
    }
    result = run(Run(str(model), calls, engine, EVERYTHING, before=AS_ON_A_DEVICE), tmp_path)
    assert result.status["disabled"] == [], result.stderr[-2000:]
    assert result.status["probe_errors"] == 0, result.stderr[-2000:]
    assert "kernels were compiled _Streams _Attention _Output" in result.stderr
    assert set(result.status["dropped_rows"]) <= {"not_delivered"}
    comparison = Comparison(result, HuggingFace(model), HIDDEN_SIZE)
    projection = orthogonal_map(HIDDEN_SIZE).astype(np.float64)
    for call in calls:
        comparison.add(call, call.id, result.tokens[call.id][0], projection)
    assert not comparison.failures()
