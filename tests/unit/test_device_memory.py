"""What Introspan takes of a device's memory for a model of eight billion parameters, counted, however many requests."""

import gc
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from introspan.capture import on_device
from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import Anatomy, AttentionPoint, Form, StreamPoint
from introspan.capture.rows import Table
from introspan.capture.step.sinks import Sinks
from introspan.capture.tapped import MOST_DEVICE_BYTES, Engine, tap
from introspan.capture.taps import static_rows
from introspan.config import load

LAYERS, WIDTH, HEADS, HEAD_SIZE, VOCABULARY = 32, 4096, 32, 128, 128_256
MOST_BYTES = 64 << 20


def _engine(requests: int) -> Engine:
    model = SimpleNamespace(
        get_hidden_size=lambda: WIDTH, get_vocab_size=lambda: VOCABULARY, dtype=torch.bfloat16
    )
    config = SimpleNamespace(
        model_config=model,
        scheduler_config=SimpleNamespace(max_num_seqs=requests, async_scheduling=True),
        max_concurrent_batches=2,
        parallel_config=None,
    )
    sinks = Sinks(**{name: lambda *_: None for name in Sinks.__dataclass_fields__})
    return Engine(SimpleNamespace(device="cpu"), config, SimpleNamespace(are_several=False), Health(), sinks)


def _anatomy() -> Anatomy:
    impl = {"num_heads": HEADS, "head_size": HEAD_SIZE, "num_kv_heads": 8, "sliding_window": -1}
    impl |= {"kv_cache_dtype": "auto"}
    attention = {
        layer: AttentionPoint(layer, SimpleNamespace(impl=SimpleNamespace(**impl, forward=None)))
        for layer in range(LAYERS)
    }
    streams = {layer: StreamPoint(layer, nn.Identity(), Form.LAYER_INPUT) for layer in range(LAYERS + 1)}
    return Anatomy(LAYERS, streams, attention, ())


def _bytes() -> int:
    """Of all tensors that there are; those that share memory once."""
    gc.collect()
    # Those of other tests that only stand for one have no memory.
    real = (each for each in gc.get_objects() if type(each) in {torch.Tensor, nn.Parameter})
    storages = (each.untyped_storage() for each in real if each.device.type == "cpu")
    total = end = 0
    # One may lie within another.
    for start, stop in sorted({(one.data_ptr(), one.data_ptr() + one.nbytes()) for one in storages}):
        total, end = total + max(stop - max(start, end), 0), max(stop, end)
    return total


ASKED = {
    "defaults": {},
    "canaries": {"INTROSPAN_CANARY_KEY": "of the canaries, long enough"},
    "everything": {"INTROSPAN_LAYERS": "all", "INTROSPAN_ATTENTION_LAYERS": "all"},
}


@pytest.mark.thorough
@pytest.mark.parametrize("requests", [1, 128, 1_024])
@pytest.mark.parametrize("asked", ASKED)
def test_whatever_waits_on_a_device_takes_no_more_than_64_mib(monkeypatch, requests, asked):
    """With -s it prints the figures of docs/gpu.md."""
    monkeypatch.setattr(static_rows, "_ON_HOST", frozenset())  # buffers as on a device
    settings = load({"INTROSPAN_ENDPOINT": "127.0.0.1:1"} | ASKED[asked])
    engine, residual = _engine(requests), settings.layers.resolve(LAYERS)
    attention = settings.attention_layers.resolve(LAYERS)
    layout = lay_out(residual, (LAYERS // 2, LAYERS - 2), attention, range(HEADS))
    before = _bytes()
    tapped = tap(engine, settings, _anatomy(), layout, within=MOST_DEVICE_BYTES)
    made = on_device.assemble(engine, settings, layout, tapped, Table(2 * requests, 16), 2 * requests, None)
    of_host = made.recorder._landing._ring._memory.nbytes  # pinned there
    taken = _bytes() - before - of_host
    print(f"{asked}, {requests} requests: {tapped.rows_max} rows, {taken / 2**20:.1f} MiB")
    assert tapped.rows_max >= min(requests, 24), "rows of a step that has every request at a burst's end"
    assert MOST_BYTES // 8 < taken <= MOST_BYTES, f"{taken / 2**20:.1f} MiB"
