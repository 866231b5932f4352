"""Scheduling is asynchronous: every row is that of a delivered token, and equals what Hugging Face computes."""

import numpy as np
from comparison import Comparison
from engine import EVERYTHING, Call, Run, run
from reference import HuggingFace
from tiny_models import SERVED, VOCABULARY, write

from introspan.capture.stream.projection import orthogonal_map

HIDDEN_SIZE = 128

# vLLM schedules asynchronously on GPUs alone. Its scheduler and its V1 runner do so on a CPU too where nobody forbids
# it, and the calls of torch.cuda that their outputs make do nothing: each copy is done at once.
ASYNCHRONOUS = """
import contextlib
import torch
from vllm.platforms.cpu import CpuPlatform

class Event:
    def __init__(self, *_, **__): pass
    def record(self, *_): pass
    def query(self): return True
    def synchronize(self): pass

torch.cuda.Event = Event
torch.cuda.stream = lambda _: contextlib.nullcontext()
torch.cuda.current_stream = lambda *_: None
configure = CpuPlatform.check_and_update_config

def check_and_update_config(_, config):
    configure(config)
    config.scheduler_config.async_scheduling = True

CpuPlatform.check_and_update_config = classmethod(check_and_update_config)
"""


def test_rows_of_an_engine_that_runs_ahead_are_those_of_delivered_tokens(tmp_path):
    model = write("llama", tmp_path / "tiny")
    engine = SERVED | {"max_model_len": 512, "max_num_seqs": 6, "num_gpu_blocks_override": 8}
    draw = np.random.default_rng(3)
    prompts = [draw.integers(3, VOCABULARY, 100 + i).tolist() for i in range(6)]
    longest = {"temperature": 0.0, "max_tokens": 120, "ignore_eos": True}
    # One in ten tokens ends these.
    stopping = {
        "temperature": 1.0,
        "max_tokens": 60,
        "stop_token_ids": list(range(3, VOCABULARY, 10)),
    }
    calls = [Call(f"request {i}", prompt, longest, at=i) for i, prompt in enumerate(prompts)]
    calls += [Call(f"stopped {i}", prompts[i][:40], stopping, at=3 * i) for i in range(5)]
    calls += [Call("aborted", prompts[0][:50], longest, at=2, abort_at=40)]
    result = run(Run(str(model), calls, engine, EVERYTHING, before=ASYNCHRONOUS), tmp_path)
    assert result.preemptions > 0, "the cache was large enough for all: nothing was tested"
    assert result.status["disabled"] == [], result.stderr[-2000:]
    assert result.status["probe_errors"] == 0, result.stderr[-2000:]
    assert result.status["dropped_rows"].keys() == {"not_delivered"}, "nothing ran ahead: nothing was tested"
    comparison = Comparison(result, HuggingFace(model), HIDDEN_SIZE, 1)
    projection = orthogonal_map(HIDDEN_SIZE).astype(np.float64)
    for call in calls:
        rows, tokens = result.rows_of(call.id), result.tokens[call.id][0]
        if call.id == "aborted":
            assert len(tokens) - 2 <= len(rows) <= len(tokens)
        else:
            assert len(rows) == len(tokens), call.id
        assert result.ended[call.id] == result.row_positions[rows].max()
        comparison.add(call, call.id, tokens[: len(rows)], projection)
    assert [line for line in comparison.failures() if "never" not in line] == []
