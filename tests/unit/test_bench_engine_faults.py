"""What the bench does to a server: blocks of the cache, checkpoints, tokenizers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.faults.checkpoints import with_change, with_other_ids, with_theta
from bench.faults.engine_faults import CacheFault
from bench.faults.position_faults import ROPE, SHIFTED, position_fault
from bench.faults.weights import Change

BLOCK = 4
TABLES = {"a": [2, 5, 0], "b": [7, 3, 0], "short": [1, 0, 0]}


def runner(*keys, prompt=8):
    """Two layers whose block n holds n and 10 n, and requests that were read; only what is long fills two blocks."""
    rows = np.array([TABLES[key] for key in keys])
    return SimpleNamespace(
        kv_caches=[torch.arange(10.0).repeat(BLOCK, 1).T * layer for layer in (1.0, 10.0)],
        input_batch=SimpleNamespace(
            req_ids=list(keys),
            num_computed_tokens_cpu=np.full(len(keys), prompt),
            num_prompt_tokens=np.array([4 if key == "short" else prompt for key in keys]),
            block_table=[SimpleNamespace(get_numpy_array=lambda: rows)],
        ),
    )


def spoilt(name, *keys):
    found = runner(*keys)
    fault = CacheFault(name, found)
    for _ in range(2):  # once each
        fault.after_step(BLOCK)
    return found.kv_caches


def test_a_foreign_block_is_what_another_request_held_in_the_same_layer():
    first, second = spoilt("kv-foreign", "a", "b", "short")
    assert first[5].tolist() == [3.0] * BLOCK
    assert first[3].tolist() == [5.0] * BLOCK
    assert second[5].tolist() == [30.0] * BLOCK
    untouched = [0, 1, 2, 4, 6, 7, 8, 9]
    assert first[untouched, 0].tolist() == untouched


def test_alone_a_request_waits_for_another_one():
    found = runner("a")
    fault = CacheFault("kv-foreign", found)
    fault.after_step(BLOCK)
    assert found.kv_caches[0][5, 0] == 5.0
    found.input_batch = runner("b").input_batch
    fault.after_step(BLOCK)
    assert found.kv_caches[0][3, 0] == 5.0


@pytest.mark.parametrize(("name", "expected"), [("kv-scaled", 7.5), ("kv-swapped", 2.0), ("", 5.0)])
def test_other_faults_of_the_cache_need_nobody_else(name, expected):
    assert spoilt(name, "a")[0][5, 0] == expected


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"rope_parameters": {"rope_theta": 100.0}}))
    tokenizer = {"added_tokens": [{"id": 0}], "model": {"vocab": {"<s>": 0, "a": 1, "b": 2, "c": 3}}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    weights = {"matrix": torch.ones(2, 2), "norm": torch.ones(2)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_checkpoint_has_the_change_in_its_matrices_and_nowhere_else(model, tmp_path):
    double = Change("twice", "", None, lambda healthy: ((name, 2 * one) for name, one in healthy.items()))
    made = load_file(with_change(model, tmp_path / "made", double) / "model.safetensors")
    assert made["matrix"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert made["norm"].tolist() == [1.0, 1.0]
    assert load_file(model / "model.safetensors")["matrix"].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_another_base_of_positions_is_in_the_configuration_alone(model, tmp_path):
    made = with_theta(model, tmp_path / "made", 10.0)
    assert json.loads((made / "config.json").read_text())["rope_parameters"]["rope_theta"] == 1000.0
    assert (made / "model.safetensors").resolve() == model / "model.safetensors"
    assert json.loads((model / "config.json").read_text())["rope_parameters"]["rope_theta"] == 100.0


def test_another_tokenizer_gives_every_ordinary_token_the_next_id(model, tmp_path):
    made = json.loads((with_other_ids(model, tmp_path / "made") / "tokenizer.json").read_text())
    assert made["model"]["vocab"] == {"<s>": 0, "a": 2, "b": 3, "c": 1}


class Turned(torch.nn.Module):
    """As vLLM's embedding of positions, whose every entry is its base."""

    def __init__(self):
        super().__init__()
        self.base = 100.0
        self.register_buffer("cos_sin_cache", self._compute_cos_sin_cache())

    def _compute_cos_sin_cache(self):
        return torch.full((3, 2), self.base)


class Placed(torch.nn.Module):
    """A model that returns the positions it was given; two layers share an embedding."""

    def __init__(self):
        super().__init__()
        self.first = self.second = Turned()

    def forward(self, positions):
        return positions.tolist()


def placed():
    """One request that is read, in three tokens, between two that are answered."""
    batch = SimpleNamespace(
        num_reqs=3, num_computed_tokens_cpu=np.array([5, 0, 9, 99]), num_prompt_tokens=np.array([5, 3, 4, 1])
    )
    starts = SimpleNamespace(np=np.array([0, 1, 4, 5, 5]))
    return SimpleNamespace(model=Placed(), input_batch=batch, query_start_loc=starts)


def test_within_the_fault_rope_turns_by_ten_times_its_theta_and_after_it_as_before():
    runner = placed()
    with position_fault(ROPE, runner):
        assert runner.model.first.cos_sin_cache.unique().tolist() == [1000.0]
    assert runner.model.first.cos_sin_cache.unique().tolist() == [100.0]
    assert runner.model.first.base == 100.0


def test_within_the_fault_decoded_tokens_lie_one_place_too_far_and_prompts_where_they_did():
    runner, positions = placed(), torch.tensor([5, 0, 1, 2, 9])
    with position_fault(SHIFTED, runner):
        assert runner.model(positions=positions) == [6, 0, 1, 2, 10]
    assert runner.model(positions=positions) == [5, 0, 1, 2, 9]
    assert positions.tolist() == [5, 0, 1, 2, 9]
