"""Which attention of vLLM's GPU backends can be measured, and why the rest cannot."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from introspan.capture.health import Health
from introspan.capture.model.anatomy import survey
from tests.unit.test_anatomy import Decoder, Layer, served

LAYERS, D = 3, 64
GPU = ["FlashAttentionImpl", "TritonAttentionImpl", "FlashInferImpl"]


def implementation(name, **own):
    """As vLLM's: FlashInfer's has no type of attention, Triton's knows forms that no other has."""
    said = {"head_size": D, "kv_cache_dtype": "auto"}
    if name != "FlashInferImpl":
        said["attn_type"] = "decoder"
    if name == "TritonAttentionImpl":
        said |= {"use_alibi_sqrt": False, "chunk_lookback": -1}
    return type(name, (), said | own)()


class Attention(nn.Module):
    """As vLLM's. quantises: whether queries are quantised before the backend sees them."""

    def __init__(self, impl, scales=(1, 1, 1), *, head_size_v=D, quantises=False) -> None:
        super().__init__()
        self.impl, self.kv_cache, self.layer_name = impl, torch.tensor([]), "attn"
        self.attn_type, self.head_size_v = "decoder", head_size_v
        self._k_scale, self._v_scale, self._q_scale = (torch.ones(count).squeeze() for count in scales)
        self.query_quant = SimpleNamespace() if quantises else None


class ChunkedLocalAttention(Attention):
    pass


def surveyed(name, module=Attention, impl=(), **own):
    def layer():
        made = Layer()
        made.attn = module(implementation(name, **dict(impl)), **own)
        return made

    return survey(served(Decoder(layer)), LAYERS)


@pytest.mark.parametrize("name", GPU)
@pytest.mark.parametrize(
    ("impl", "own"),
    [
        ({}, {}),
        ({"kv_cache_dtype": "bfloat16"}, {}),
        ({"kv_cache_dtype": "fp8"}, {"quantises": True}),
        ({"kv_cache_dtype": "fp8_e5m2"}, {"quantises": True}),
    ],
)
def test_attention_of_gpu_backends_is_measured(name, impl, own):
    found = surveyed(name, impl=impl, **own)
    assert sorted(found.attention) == [0, 1, 2]
    assert found.refused == ()


@pytest.mark.parametrize("name", GPU)
@pytest.mark.parametrize(
    ("impl", "own", "why"),
    [
        ({"kv_cache_dtype": "nvfp4"}, {}, "the KV cache is quantised (nvfp4)"),
        (
            {"kv_cache_dtype": "fp8_per_token_head"},
            {},
            "the KV cache is quantised (fp8_per_token_head)",
        ),
        (
            {"kv_cache_dtype": "fp8"},
            {"scales": (4, 1, 1), "quantises": True},
            "the fp8 cache has scales for each head, one for all is understood",
        ),
        (
            {"kv_cache_dtype": "fp8"},
            {"scales": (1, 1, 4), "quantises": True},
            "the fp8 cache has scales for each head, one for all is understood",
        ),
        ({}, {"head_size_v": 32}, "values of 32 numbers are not as long as keys of 64"),
        (
            {},
            {"module": ChunkedLocalAttention},
            "ChunkedLocalAttention lays out which keys a query attends to in a way of its own",
        ),
        ({"attn_type": "encoder_only"}, {}, "attention of type encoder_only is not causal"),
    ],
)
def test_attention_that_would_be_measured_wrongly_is_refused_and_streams_are_not(name, impl, own, why):
    found = surveyed(name, impl=impl, **own)
    assert found.attention == {}
    assert [(one.signal, one.reason, one.detail) for one in found.refused] == [
        ("attention", "unsupported_attention", why)
    ]


@pytest.mark.parametrize(
    ("name", "impl", "why"),
    [
        (
            "TritonAttentionImpl",
            {"use_alibi_sqrt": True},
            "scores change with the square root of how far a key is away",
        ),
        (
            "TritonAttentionImpl",
            {"chunk_lookback": 1},
            "attention in chunks of its own (chunk_lookback) is not a window",
        ),
        (
            "FlashInferImpl",
            {"kv_cache_dtype": "fp8"},
            "FlashInfer may quantise queries itself, out of sight, where the cache is fp8",
        ),
        ("FlashInferMLAImpl", {}, "FlashInferMLAImpl keeps latent keys (MLA)"),
        ("FlashAttentionDiffKVImpl", {}, "the cache layout of FlashAttentionDiffKVImpl is not known"),
    ],
)
def test_what_one_backend_alone_does_is_refused_by_name(name, impl, why):
    (refused,) = surveyed(name, impl=impl).refused
    assert refused.detail == why


def test_fp8_of_another_bias_is_refused(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.2")
    (refused,) = surveyed("TritonAttentionImpl", impl={"kv_cache_dtype": "fp8"}, quantises=True).refused
    assert refused.detail == "fp8 of AMD's GPUs has another bias"


def test_a_layer_of_another_kind_costs_its_own_attention_only():
    made = iter(range(LAYERS))

    def layer():  # a Mamba layer has no attention at all
        one = Layer(attentions=0)
        if next(made) != 1:
            one.attn = Attention(implementation("FlashAttentionImpl"))
        return one

    found = survey(served(Decoder(layer)), LAYERS)
    assert sorted(found.attention) == [0, 2]
    assert [(one.signal, one.detail) for one in found.refused] == [
        ("attention.some_layers", "a layer has 0 attention modules, exactly 1 is understood")
    ]
    health = Health()
    for one in found.refused:
        health.refuse(one)
    assert health.is_on("attention")
