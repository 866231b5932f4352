"""Where streams and attention of a model can be read, by the forms its layers take, and what is refused and why."""

import pytest
import torch
from torch import nn

from introspan.capture.health import Health
from introspan.capture.model.anatomy import Form, describe, survey

D, LAYERS = 16, 3


class Norm(nn.Module):
    """Adds what it is given and hands the sum on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(D))

    def forward(self, x, residual=None):
        return x * self.weight if residual is None else ((x + residual) * self.weight, x + residual)


class NormOfFirst(Norm):
    """Normalises its first argument and hands the second one through."""

    def forward(self, x, residual=None):
        return x * self.weight if residual is None else (x * self.weight, residual)


class Attention(nn.Module):
    def __init__(self, impl) -> None:
        super().__init__()
        self.impl, self.kv_cache, self.layer_name = impl, None, "attn"


def implementation(name="CPUAttentionBackendImpl", dtype="auto", attn_type="decoder"):
    return type(name, (), {"kv_cache_dtype": dtype, "attn_type": attn_type})()


class Layer(nn.Module):
    """A decoder layer with a first norm."""

    def __init__(self, norm=Norm, attentions=1, **impl) -> None:
        super().__init__()
        self.input_layernorm = norm()
        self.attn = nn.ModuleList(Attention(implementation(**impl)) for _ in range(attentions))

    def forward(self, _positions, hidden_states, residual):
        return hidden_states, residual


class Plain(nn.Module):
    """A decoder layer whose norm has a name that nobody knows, called with the stream alone."""

    def forward(self, _positions, hidden_states):
        return hidden_states


class Split(nn.Module):
    """The same, called with a stream in two parts."""

    def forward(self, _positions, hidden_states, residual):
        return hidden_states, residual


class Decoder(nn.Module):
    def __init__(self, make=Layer, *, final=True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(LAYERS))
        if final:
            self.norm = Norm()


def served(decoder):
    model = nn.Module()
    model.model = decoder
    return model


@pytest.mark.parametrize(
    ("make", "form"),
    [(Layer, Form.NORM), (lambda: Layer(NormOfFirst), Form.NORM_INPUT), (Plain, Form.LAYER_INPUT)],
)
def test_a_stream_is_read_in_the_form_that_its_layer_takes(make, form):
    found = survey(served(Decoder(make)), LAYERS)
    assert {layer: found.streams[layer].form for layer in range(LAYERS)} == dict.fromkeys(range(LAYERS), form)
    assert found.streams[LAYERS].form is Form.NORM
    assert [entry for entry in found.refused if entry.signal == "residual"] == []


def test_a_layer_that_takes_the_stream_in_two_parts_is_refused_and_named():
    (refused,) = [one for one in survey(served(Decoder(Split)), LAYERS).refused if one.signal == "residual"]
    assert (refused.reason, refused.detail) == (
        "unsupported_layer",
        "the stream entering layers [0, 1, 2] cannot be read",
    )


def test_a_model_without_a_final_norm_lacks_the_last_stream_alone():
    found = survey(served(Decoder(final=False)), LAYERS)
    assert sorted(found.streams) == [0, 1, 2]
    assert [(one.signal, one.detail) for one in found.refused] == [
        ("residual.some_layers", "the stream entering layers [3] cannot be read")
    ]


def test_a_model_of_unknown_build_is_refused_as_a_whole():
    found = survey(served(nn.Linear(2, 2)), LAYERS)
    assert (found.streams, found.attention) == ({}, {})
    assert [(one.signal, one.reason) for one in found.refused] == [
        ("residual", "unsupported_model"),
        ("attention", "unsupported_model"),
    ]


def test_the_layers_of_a_drafter_are_not_the_models():
    model = nn.Module()
    model.drafter, model.model = Decoder(), Decoder()
    found = survey(model, LAYERS)
    assert [found.streams[layer].module for layer in range(LAYERS)] == [
        layer.input_layernorm for layer in model.model.layers
    ]


@pytest.mark.parametrize("beside", ["encoder", "vision_encoder", "draft_model"])
def test_a_stack_of_as_many_layers_beside_the_decoder_is_not_taken_for_it(beside):
    model = served(Decoder())
    first = nn.Module()
    first.add_module(beside, Decoder(Plain))
    first.model = model.model
    found = survey(first, LAYERS)
    assert found.streams[0].module is first.model.layers[0].input_layernorm


def test_where_vllm_says_which_part_generates_text_that_part_is_looked_at():
    class Seeing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.language = Decoder(Plain), Decoder()

        def get_language_model(self):
            return self.language

    model = Seeing()
    assert survey(model, LAYERS).streams[LAYERS].module is model.language.norm


def test_where_vllm_does_not_know_which_part_generates_text_the_whole_is_looked_at():
    class Unknown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Decoder()

        def get_language_model(self):
            raise NotImplementedError

    assert len(survey(Unknown(), LAYERS).streams) == LAYERS + 1


@pytest.mark.parametrize(
    "name", ["norm", "operator_norm", "pre_mixer_norm", "attention_layernorm", "input_layernorm"]
)
def test_a_layer_without_attention_is_read_at_its_first_norm_by_any_of_its_names(name):
    class Mixer(Split):
        """As a Mamba layer: a state where attention would be."""

        def __init__(self) -> None:
            super().__init__()
            self.add_module(name, Norm())
            self.mixer = nn.Linear(D, D)
            self.mixer.kv_cache = (torch.zeros(1), torch.zeros(1))

    found = survey(served(Decoder(Mixer)), LAYERS)
    assert {found.streams[layer].form for layer in range(LAYERS)} == {Form.NORM}
    assert [one.signal for one in found.refused] == ["attention"]


@pytest.mark.parametrize(
    ("impl", "why"),
    [
        ({"name": "CPUMLAImpl"}, "CPUMLAImpl keeps latent keys (MLA)"),
        ({"name": "FlexAttentionImpl"}, "the cache layout of FlexAttentionImpl is not known"),
        ({"dtype": "fp8_e4m3"}, "the KV cache is quantised (fp8_e4m3)"),
        ({"attn_type": "encoder_only"}, "attention of type encoder_only is not causal"),
        ({"attentions": 2}, "a layer has 2 attention modules, exactly 1 is understood"),
        ({"attentions": 0}, "a layer has 0 attention modules, exactly 1 is understood"),
    ],
)
def test_attention_that_would_be_measured_wrongly_is_refused_once_and_streams_are_not(impl, why):
    found = survey(served(Decoder(lambda: Layer(**impl))), LAYERS)
    assert found.attention == {}
    assert [(one.signal, one.reason, one.detail) for one in found.refused] == [
        ("attention", "unsupported_attention", why)
    ]
    assert sorted(found.streams) == [0, 1, 2, 3]
    assert list(describe(found))[-1] == f"not captured: attention: {why}"


def test_a_model_with_attention_in_some_layers_is_measured_there():
    attentions = iter((0, 1, 0))
    found = survey(served(Decoder(lambda: Layer(attentions=next(attentions)))), LAYERS)
    assert sorted(found.attention) == [1]
    health = Health()
    for entry in found.refused:
        health.refuse(entry)
    assert health.is_on("attention")
    assert list(health.disabled) == ["attention.some_layers"]
