"""A loaded model in; the places where its streams and attention can be tapped out, and what cannot be, and why."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn

from introspan.capture.model.attention import find_attention, refusal
from introspan.observation import Disabled

_STACK_NAMES = ("layers", "h", "blocks")
_FIRST_NORMS = (
    *("input_layernorm", "ln_1", "norm1", "attention_norm", "attn_norm", "ln_attn", "input_norm"),
    *("attention_layernorm", "operator_norm", "pre_mixer_norm", "norm"),
)
_FINAL_NORMS = (
    *("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f", "final_norm"),
    *("embedding_norm", "layer_norm"),
)
# A drafter's layers hang under the served model in some engines, and an encoder's beside the decoder's.
_NOT_THE_DECODER = re.compile(r"draft|eagle|mtp|(^|\.)(vision_|audio_|speech_)?encoder(\.|$)")
SOME_STREAMS, SOME_ATTENTION = "residual.some_layers", "attention.some_layers"
"""Names of what is refused at some layers and measured at the others."""

_OF_ANOTHER_STAGE = "PPMissingLayer"  # what vLLM puts in the place of layers that other pipeline stages hold


class Form(Enum):
    """How the residual stream entering a layer is read."""

    NORM = "norm"
    """At the layer's first norm: `norm(x, r)` adds them and returns the sum as `out[1]`, `norm(x)` takes it as x."""
    NORM_INPUT = "norm_input"
    """At the layer's first norm, which takes it as its first argument and hands a second one through."""
    LAYER_INPUT = "layer_input"
    """At the layer's own call, which takes it as its only activation."""
    HANDED_ON = "handed_on"
    """Behind the model's own call, which returns it for the next pipeline stage: whole, or in two parts to be added."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamPoint:
    """Where h_ℓ is read; layer L stands for the stream entering the final norm.

    Of a pipeline stage the point behind its last layer has the number of the next stage's first, and that stage has it
    too.
    """

    layer: int
    module: nn.Module
    form: Form


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPoint:
    """One layer's attention. module is vLLM's Attention, whose `impl` and `kv_cache` are used."""

    layer: int
    # Any: vLLM's Attention is not typed beyond nn.Module.
    module: Any


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """A decoder as far as it can be tapped: streams by layer 0 … L, attention by layer 0 … L−1.

    Of one that is spread over pipeline stages, what this one has of it; layer_count is that of the whole.
    """

    layer_count: int
    streams: dict[int, StreamPoint]
    attention: dict[int, AttentionPoint]
    refused: tuple[Disabled, ...]

    def owns(self, layer: int) -> bool:
        """Whether the stream entering a layer is read here, and not handed on to be read by the next stage."""
        point = self.streams.get(layer)
        return point is not None and point.form is not Form.HANDED_ON


def survey(model: nn.Module, layer_count: int) -> Anatomy:
    """What can be tapped in a model of `layer_count` decoder layers. Raises nothing: refusals are in the result."""
    stack = _stack(_language_model(model), layer_count)
    if stack is None:
        reason = f"no stack of {layer_count} decoder layers named {', '.join(_STACK_NAMES)}"
        return Anatomy(
            layer_count,
            {},
            {},
            (
                Disabled("residual", "unsupported_model", reason),
                Disabled("attention", "unsupported_model", reason),
            ),
        )
    parent, layers = stack
    refused: list[Disabled] = []
    streams: dict[int, StreamPoint] = {}
    held = {
        layer: module for layer, module in enumerate(layers) if type(module).__name__ != _OF_ANOTHER_STAGE
    }
    for layer, module in held.items():
        point = _stream(layer, module)
        if point is not None:
            streams[layer] = point
    behind = max(held, default=-1) + 1
    last = _last_stream(model, parent, behind, layer_count)
    if last is not None:
        streams[behind] = last
    missing = sorted({*held, behind} - set(streams))
    if missing:
        whole = not any(layer in streams and layer + 1 in streams for layer in held)
        signal = "residual" if whole else SOME_STREAMS
        refused.append(
            Disabled(signal, "unsupported_layer", f"the stream entering layers {missing} cannot be read")
        )
    attention, why = _attention(held)
    if why:
        signal = SOME_ATTENTION if attention else "attention"
        refused.append(Disabled(signal, "unsupported_attention", "; ".join(why)))
    return Anatomy(layer_count, streams, attention, tuple(refused))


def _last_stream(model: nn.Module, parent: nn.Module, behind: int, layer_count: int) -> StreamPoint | None:
    """Where the stream behind the last layer that is held here is read."""
    if behind < layer_count:
        return StreamPoint(behind, model, Form.HANDED_ON)
    final = next((getattr(parent, name) for name in _FINAL_NORMS if hasattr(parent, name)), None)
    return None if final is None else StreamPoint(layer_count, final, _norm_form(final))


def _attention(layers: dict[int, nn.Module]) -> tuple[dict[int, AttentionPoint], list[str]]:
    """Attention by layer, and why it cannot be measured in the other layers, each reason once."""
    attention: dict[int, AttentionPoint] = {}
    refused: dict[str, None] = {}
    for layer, module in layers.items():
        found = find_attention(module)
        why = refusal(found)
        if why is None:
            attention[layer] = AttentionPoint(layer, found[0])
        else:
            refused[why] = None
    return attention, list(refused)


def _language_model(model: nn.Module) -> nn.Module:
    """The part that generates text, where vLLM says which: a tower for pictures may have as many layers."""
    # Any: a method of vLLM's models of several kinds of input.
    find: Any = getattr(model, "get_language_model", None)
    try:
        found: nn.Module = model if find is None else find()
    except NotImplementedError:  # vLLM does not know either
        return model
    return found


def _stack(model: nn.Module, layer_count: int) -> tuple[nn.Module, nn.ModuleList] | None:
    for name, module in model.named_modules():
        if _NOT_THE_DECODER.search(name):
            continue
        for stack_name in _STACK_NAMES:
            layers = getattr(module, stack_name, None)
            if isinstance(layers, nn.ModuleList) and len(layers) == layer_count:
                return module, layers
    return None


def _stream(layer: int, module: nn.Module) -> StreamPoint | None:
    norm = next((getattr(module, name) for name in _FIRST_NORMS if hasattr(module, name)), None)
    if isinstance(norm, nn.Module):
        return StreamPoint(layer, norm, _norm_form(norm))
    parameters = inspect.signature(module.forward).parameters
    if "hidden_states" in parameters and "residual" not in parameters:
        return StreamPoint(layer, module, Form.LAYER_INPUT)
    return None


@torch.inference_mode()
def _norm_form(norm: nn.Module) -> Form:
    """Which of its arguments a norm that takes two normalises, found by trying it on two rows."""
    weight = next(norm.parameters(), None)
    if weight is None or weight.dim() != 1 or weight.is_meta:
        return Form.NORM
    x, r = (torch.full((2, len(weight)), v, dtype=weight.dtype, device=weight.device) for v in (1.0, 2.0))
    try:
        result = norm.forward(x.clone(), r.clone())
    except Exception:  # noqa: BLE001 - a norm of one argument, or one that works in a forward only
        return Form.NORM
    hands_through = isinstance(result, tuple) and torch.equal(result[1], r)
    return Form.NORM_INPUT if hands_through else Form.NORM


def describe(anatomy: Anatomy) -> Iterator[str]:
    """Lines for a person on what is tapped and what is not."""
    forms = {point.form.value for point in anatomy.streams.values()}
    yield f"residual stream: {len(anatomy.streams)} of {anatomy.layer_count + 1} points ({', '.join(sorted(forms))})"
    yield f"attention: {len(anatomy.attention)} of {anatomy.layer_count} layers"
    for entry in anatomy.refused:
        yield f"not captured: {entry.signal}: {entry.detail}"
