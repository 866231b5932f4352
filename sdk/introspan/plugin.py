"""vLLM's processes in, ours attached: the entry point `vllm.general_plugins`.

`register` runs in the API process, the engine and every worker, so it is cheap, idempotent, and starts neither
threads nor gRPC. Whatever goes wrong here is logged once and never reaches the server.
"""

import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from introspan import __version__
from introspan.config import Settings, SettingsError, load

_log = logging.getLogger("introspan")
_state: dict[str, Any] = {}


# Any: introspan.pipeline.Pipeline, or what stands in for it in a test.
def register(pipeline: Callable[..., Any] | None = None) -> None:
    """Attaches Introspan to this process of vLLM; raises nothing. Called again, it does nothing.

    pipeline takes the place of introspan.pipeline.Pipeline.
    """
    if _state:
        return
    _state["pipeline"] = pipeline
    _log_to_stderr()
    _guarded("attaching to vLLM", _register)


def _register() -> None:
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415 - the SDK is imported where vLLM is not
    from vllm.v1.worker.worker_base import WorkerWrapperBase  # noqa: PLC0415

    _after(EngineArgs, "create_engine_config", _configure)
    _after(WorkerWrapperBase, "init_device", _follow_worker)


# Any: classes and configuration of vLLM.
def _after(owner: Any, name: str, action: Callable[..., None]) -> None:
    """Runs an action after a method of the host, with the method's self and result; its errors stay here."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        _guarded(name, action, self, result)
        return result

    setattr(owner, name, call)


def _guarded(what: str, action: Callable[..., None], *args: Any) -> None:
    try:
        action(*args)
    except SettingsError as error:
        _log.warning("introspan: capture is off: %s", error)
    except Exception:  # noqa: BLE001 - nothing of ours may raise into the host
        _log.warning("introspan: %s failed, the server runs without capture", what, exc_info=True)


def _configure(_: Any, config: Any) -> None:
    """In the API process: puts what shapes the graph into additional_config, so that it enters the compile key."""
    settings = _settings(config)
    if settings.off_because is not None:
        _log.info("introspan: %s", settings.off_because)
        return
    from introspan.capture import frontend  # noqa: PLC0415 - imports nothing of torch until it is needed

    if isinstance(config.additional_config, dict):
        config.additional_config.setdefault("introspan_sdk", _graph(settings))
    if not _state.get("frontend"):
        _state["frontend"] = True
        frontend.install(settings.salt or os.urandom(16))


def _graph(settings: Settings) -> str:
    """What the compiled graph depends on: which streams are tapped, and by which version."""
    return f"{__version__} layers={settings.layers.wanted} projections={settings.projections}"


def _follow_worker(wrapper: Any, _: None) -> None:
    """In a worker whose device is ready: follows the runner from the moment its model is loaded."""
    settings = _settings(wrapper.vllm_config)
    if settings.off_because is not None:
        return
    runner = wrapper.worker.model_runner
    original = runner.load_model

    @functools.wraps(original)
    def load_model(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        _guarded("following the model", _follow_model, runner, wrapper.vllm_config, settings)
        return result

    runner.load_model = load_model


def _follow_model(runner: Any, config: Any, settings: Settings) -> None:
    from introspan.capture.worker import follow  # noqa: PLC0415 - torch is there only in a worker
    from introspan.pipeline import Pipeline  # noqa: PLC0415

    follow(runner, config, settings, _state["pipeline"] or Pipeline)


def _settings(config: Any) -> Settings:
    additional = config.additional_config if isinstance(config.additional_config, dict) else {}
    return load(os.environ, additional.get("introspan"))


def _log_to_stderr() -> None:
    """Gives our lines a handler where the host configured none for us: vLLM sets up its own loggers only."""
    if not _log.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(asctime)s %(message)s", "%m-%d %H:%M:%S"))
        _log.addHandler(handler)
        _log.setLevel(logging.INFO)
        _log.propagate = False
