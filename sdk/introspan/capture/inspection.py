"""An installed vLLM and the name of a model in; what would be captured, and why not where not, out.

The model's layers are built on the meta device: no weights are read and no memory is taken for them.
"""

import tempfile
from collections.abc import Iterator
from typing import Any

import torch

from introspan.capture.columns import lay_out
from introspan.capture.model.anatomy import Anatomy, describe, survey
from introspan.capture.requests.endpoints import having
from introspan.capture.runner import v1_runner
from introspan.capture.worker import Depths, choose
from introspan.config import Settings

TESTED = ("0.32.0",)
"""Versions of vLLM that the test suite has run against."""

_LONGEST_REASON = 400


def engine() -> Iterator[str]:
    """Lines on the installed vLLM. Raises ImportError where there is none."""
    import vllm  # noqa: PLC0415 - whether it is there is the question

    version = vllm.__version__
    tested = "tested" if version in TESTED else f"not tested; {', '.join(TESTED)} is"
    yield f"vLLM {version}: {tested}"
    for owner, name in _surfaces():
        if not hasattr(owner, name):
            yield f"not captured: capture: vLLM {version} lacks {owner.__name__}.{name}"
    for name in ("_get_trace_headers", "_check_model"):
        try:
            having(name)
        except AttributeError as error:
            yield f"not captured: callers: {error}"


# Any: classes of vLLM.
def _surfaces() -> Iterator[tuple[Any, str]]:
    """The places where Introspan attaches."""
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415 - vLLM may not be installed, which is said in words
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415 - as above
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner  # noqa: PLC0415 - as above
    from vllm.v1.worker.worker_base import WorkerWrapperBase  # noqa: PLC0415 - as above

    yield EngineArgs, "create_engine_config"
    yield WorkerWrapperBase, "init_device"
    yield AsyncLLM, "generate"
    for name in v1_runner.METHODS:
        yield GPUModelRunner, name


def model(name: str, settings: Settings) -> Iterator[str]:
    """Lines on a model, by folder or by hub id."""
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415 - see _surfaces()

    try:
        config = EngineArgs(model=name, load_format="dummy", enforce_eager=True).create_engine_config()
        why = v1_runner.configuration_refusal(config)
    except Exception as error:  # noqa: BLE001 - whatever vLLM says of a model that it cannot serve
        why = f"vLLM cannot serve {name}: {_in_a_line(error)}"
    if why is not None:
        yield f"not captured: capture: {why}"
        return
    try:
        built = _skeleton(config)
    except Exception as error:  # noqa: BLE001 - a module of vLLM's may compute with its weights when it is made
        why = f"the layers cannot be made without weights ({_in_a_line(error)})"
        yield f"not known: capture: {why}; the server's log says at its start what is captured"
        return
    text = config.model_config.hf_text_config
    anatomy = survey(built, text.num_hidden_layers)
    yield from describe(anatomy)
    depths = choose(settings, anatomy)
    layout = lay_out(depths.residual, depths.projection, depths.attention, range(text.num_attention_heads))
    yield from _by_signal(anatomy, depths)
    yield f"{len(layout.columns)} values a row, {4 * len(layout.columns) / 1024:.1f} KiB"


def _in_a_line(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said:.{_LONGEST_REASON}}"


def _skeleton(config: Any) -> torch.nn.Module:
    from vllm.config import set_current_vllm_config  # noqa: PLC0415 - see _surfaces()
    from vllm.distributed import init_distributed_environment, initialize_model_parallel  # noqa: PLC0415 - as above
    from vllm.model_executor.model_loader.utils import initialize_model  # noqa: PLC0415 - as above
    from vllm.utils.torch_utils import set_default_torch_dtype  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as folder, set_current_vllm_config(config):
        init_distributed_environment(1, 0, f"file://{folder}/meeting", 0, "gloo")
        initialize_model_parallel()
        with torch.device("meta"), set_default_torch_dtype(config.model_config.dtype):
            built: torch.nn.Module = initialize_model(vllm_config=config)
            return built


def _by_signal(anatomy: Anatomy, depths: Depths) -> Iterator[str]:
    refused = {entry.signal: entry for entry in anatomy.refused}
    for group, layers in (
        ("residual", depths.residual),
        ("residual.projection", depths.projection),
        ("attention", depths.attention),
    ):
        if layers:
            yield f"captured: {group} at layers {', '.join(map(str, layers))}"
        elif group in refused:
            yield f"not captured: {group}: {refused[group].detail}"
    yield "captured: output, sampler"
