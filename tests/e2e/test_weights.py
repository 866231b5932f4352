"""A model that gets other weights while it serves is another model from then on, and still measured right."""

import numpy as np
import pytest
from comparison import Comparison
from engine import EVERYTHING, Call, Run, run
from reference import HuggingFace
from tiny_models import SERVED, VOCABULARY, write

from introspan.capture.model.fingerprint import PARTIAL
from introspan.capture.model.loaded import LOADED
from introspan.capture.stream.projection import orthogonal_map

HIDDEN_SIZE = 128
ENGINE = SERVED | {"max_model_len": 512, "max_num_seqs": 8}

# vLLM's own ways of handing weights over in memory all want a GPU: this one reads them from a file.
FILE_TRANSFER = """
from dataclasses import dataclass
from safetensors.torch import load_file
from vllm.distributed.weight_transfer.base import WeightTransferEngine
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

@dataclass
class Nothing:
    pass

@dataclass
class Update:
    path: str

class FileTransfer(WeightTransferEngine):
    init_info_cls, update_info_cls = Nothing, Update

    def init_transfer_engine(self, init_info):
        pass

    def start_weight_update(self):
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info):
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info):
        self.model.load_weights(load_file(update_info.path).items())

    def finish_weight_update(self):
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self):
        pass

WeightTransferEngineFactory.register_engine("file", FileTransfer)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return [write("llama", tmp_path_factory.mktemp(f"seed{seed}"), seed) for seed in (7, 8, 9)]


def _call(name: str, seed: int, at: int, tokens: int, temperature: float) -> Call:
    prompt = np.random.default_rng(seed).integers(3, VOCABULARY, 40).tolist()
    return Call(name, prompt, {"temperature": temperature, "max_tokens": tokens, "ignore_eos": True}, at=at)


def _pair(name: str, seed: int, at: int) -> list[Call]:
    return [_call(f"{name} {t}", seed + i, at, 10, t) for i, t in enumerate((0.0, 1.0))]


def test_every_change_of_weights_gives_another_fingerprint_and_rows_of_the_new_weights(models, tmp_path):
    first, second, third = models
    calls = {
        0: _pair("first", 1, 0),
        1: _pair("second", 3, 30),
        2: _pair("third", 5, 70),
        3: _pair("fourth", 7, 90),
    }
    through = _call("through", 9, 15, 30, 0.0)
    across = _call("across", 10, 55, 30, 1.0)
    rpcs = [
        (25, "reload_weights", {"weights_path": str(second)}),
        (60, "start_weight_update", {}),
        (60, "update_weights", {"update_info": {"path": str(third / "model.safetensors")}}),
        (60, "finish_weight_update", {}),
        (85, "reload_weights", {"weights_path": str(first)}),
    ]
    task = Run(
        str(first),
        [*(call for pair in calls.values() for call in pair), through, across],
        ENGINE | {"weight_transfer_config": {"backend": "file"}},
        EVERYTHING,
        before=FILE_TRANSFER,
        rpcs=rpcs,
    )
    result = run(task, tmp_path)
    assert result.status["disabled"] == [], result.stderr[-2000:]
    assert result.status["probe_errors"] == 0, result.stderr[-2000:]
    # The name of the model that was reloaded is the one it started with: its tokenizer stays the first one's.
    names = [result.resource["model_fingerprint"], *result.fingerprints]
    assert len(names) == 4
    assert len(set(names[:3])) == 3
    assert names[3] == names[0]
    assert [name.startswith(LOADED) for name in names] == [False, False, True, False]
    assert not any(name.startswith(PARTIAL) for name in names)
    # What was in flight is measured as long as its weights lived, though it was served to its end.
    for name, steps in (("through", 10), ("across", 5)):
        assert result.row_positions[result.rows_of(name)].tolist() == list(range(39, 39 + steps))
        assert len(result.tokens[name][0]) == 30
    projection = orthogonal_map(HIDDEN_SIZE).astype(np.float64)
    for change, model in enumerate([first, second, third, first]):
        comparison = Comparison(result, HuggingFace(model), HIDDEN_SIZE)
        for call in calls[change]:
            assert {result.row_models[row] for row in result.rows_of(call.id)} == {change}
            comparison.add(call, call.id, result.tokens[call.id][0], projection)
        assert not comparison.failures(), f"after change {change}"
