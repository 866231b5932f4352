"""Other ways to a served model's hidden states in; what each costs beside Introspan with everything on, out."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.collector import collector
from bench.gpu.cost import compare, fitting
from bench.gpu.engines import ABSENT, EVERYTHING, Kind, Served, serving
from bench.gpu.models import drawn
from bench.gpu.scale import Scale

_SHARE = 0.17
"""Of the GPU's memory for each of five engines."""


def run(scale: Scale, model: str, context: str) -> dict[str, Any]:
    """Times of each way, and their ratios to the engine as it is. What does not start says why."""
    length, batch = scale.contexts[context], min(16, max(scale.batches))
    layers = int(scale.models[model]["num_hidden_layers"])
    why: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        collecting = stack.enter_context(collector(Path(scratch)))
        folder = drawn(scale.models[model], Path(scratch, "model"))
        plain = fitting([batch], length, scale.tokens, _SHARE)
        eager = plain | {"enforce_eager": True}
        on = {"INTROSPAN_ENDPOINT": collecting.grpc} | EVERYTHING
        kinds = {
            "as_it_is": Kind(folder, ABSENT, plain),
            "introspan": Kind(folder, on, plain),
            "eager": Kind(folder, ABSENT, eager),
            "hooks": Kind(folder, ABSENT | {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}, eager, hooks=True),
            "extract_hidden_states": Kind(
                folder, ABSENT, plain | extracting(layers, Path(scratch, "states"))
            ),
        }
        engines: dict[str, Served] = {}
        for name, kind in kinds.items():
            try:
                engines[name] = stack.enter_context(serving(kind, scale))
            except RuntimeError as error:
                if name in {"as_it_is", "introspan"}:
                    raise
                why[name] = f"did not start: {str(error).splitlines()[-1][:200]}"
        return {"batch": batch, **beside(engines, batch, length, scale), **why}


def beside(engines: dict[str, Served], batch: int, context: int, scale: Scale) -> dict[str, Any]:
    """Each engine by turns with the first. One that ends in the middle says so, and costs no other its figures."""
    base, *others = engines
    found: dict[str, Any] = {}
    for name in others:
        try:
            found[name] = compare({base: engines[base], name: engines[name]}, batch, context, scale)
        except (RuntimeError, OSError) as error:
            found[name] = f"ended while it worked: {str(error)[:200]}"
    return found


def extracting(layers: int, folder: Path) -> dict[str, Any]:
    """The way of vLLM itself: hidden states as if a drafter had asked for them, written to files."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "speculative_config": {
            "method": "extract_hidden_states",
            "num_speculative_tokens": 1,
            "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": list(range(1, layers))}},
        },
        "kv_transfer_config": {
            "kv_connector": "ExampleHiddenStatesConnector",
            "kv_role": "kv_producer",
            "kv_connector_extra_config": {"shared_storage_path": str(folder)},
        },
    }
