"""Requests with a LoRA adapter and without, in one batch: each is named, and measured as what computed it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from comparison import Comparison
from engine import EVERYTHING, Call, Run, run
from reference import HuggingFace
from safetensors.torch import save_file
from tiny_models import SERVED, VOCABULARY, write
from transformers import AutoModelForCausalLM

from introspan.capture.stream.projection import orthogonal_map

HIDDEN_SIZE = 128
RANK, ALPHA = 4, 8
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _adapt(base: Path, adapter: Path, merged: Path, seed: int) -> None:
    """Writes an adapter in peft's format, and the model that it makes of the base one."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tensors = {}
    for name, module in model.named_modules():
        if name.endswith(TARGETS):
            a = torch.randn(RANK, module.in_features, generator=generator) * 0.15
            b = torch.randn(module.out_features, RANK, generator=generator) * 0.15
            tensors[f"base_model.model.{name}.lora_A.weight"] = a
            tensors[f"base_model.model.{name}.lora_B.weight"] = b
            module.weight.data += ALPHA / RANK * b @ a
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"target_modules": list(TARGETS)}))
    model.save_pretrained(merged)


@pytest.mark.parametrize("eager", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_rows_are_of_the_adapter_that_their_request_named(eager, tmp_path):
    base = write("llama", tmp_path / "base")
    merged = {"": base}
    for seed, name in enumerate(("legal", "medical")):
        merged[name] = tmp_path / f"merged {name}"
        _adapt(base, tmp_path / name, merged[name], seed)
    draw = np.random.default_rng(5)
    calls: dict[str, list[Call]] = {name: [] for name in merged}
    for i in range(12):
        name = ("", "legal", "medical")[i % 3]
        params = {"temperature": 1.0 if i % 2 else 0.0, "max_tokens": 8, "ignore_eos": True}
        prompt = draw.integers(3, VOCABULARY, (5, 40, 150)[i // 4]).tolist()
        adapter = str(tmp_path / name) if name else ""
        calls[name].append(Call(f"{name or 'base'} {i}", prompt, params, at=i, adapter=adapter))
    engine = SERVED | {
        "max_model_len": 512,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 128,
        "enable_lora": True,
        # One more than there are adapters, since the last one is what this engine takes for none: see docs/limits.md.
        "max_loras": 3,
        "max_lora_rank": 8,
        "enforce_eager": eager,
    }
    result = run(
        Run(str(base), [call for named in calls.values() for call in named], engine, EVERYTHING), tmp_path
    )
    assert result.status["disabled"] == [], result.stderr[-2000:]
    assert result.status["probe_errors"] == 0, result.stderr[-2000:]
    projection = orthogonal_map(HIDDEN_SIZE).astype(np.float64)
    for name, model in merged.items():
        assert {result.adapters[call.id] for call in calls[name]} == {name}
        comparison = Comparison(result, HuggingFace(model), HIDDEN_SIZE)
        for call in calls[name]:
            comparison.add(call, call.id, result.tokens[call.id][0], projection)
        assert not comparison.failures(), name or "base"
    # The test can tell them apart: the base model is not what computed an adapter's rows.
    wrong = Comparison(result, HuggingFace(base), HIDDEN_SIZE)
    wrong.add(calls["legal"][0], calls["legal"][0].id, result.tokens[calls["legal"][0].id][0], projection)
    assert any(line.startswith("('residual.") for line in wrong.failures() if "never" not in line)
