"""vLLM's processes in, ours attached: the entry point `vllm.general_plugins`, and what the instrumentor shares with it.

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
from introspan.patches import Patches

_log = logging.getLogger("introspan")
_state: dict[str, Any] = {}
_worker_side = Patches()
_SAID_WRONG = "a setting is wrong, and the API process has said which"


# Any: introspan.pipeline.Pipeline, or what stands in for it in a test.
def register(pipeline: Callable[..., Any] | None = None) -> None:
    """Attaches Introspan to this process of vLLM; raises nothing. Called again, it does nothing.

    pipeline takes the place of introspan.pipeline.Pipeline.
    """
    if "pipeline" in _state:
        return
    _state["pipeline"] = pipeline
    attach_api_side()
    _guarded("attaching to vLLM's workers", _attach_workers)
    _guarded("attaching to vLLM's engine core", _attach_core)


def attach_api_side() -> None:
    """Lets trace and caller of this process's requests travel to the workers; called again, it does nothing."""
    if "api" not in _state:
        _state["api"] = Patches()
        _log_to_stderr()
        _guarded("attaching to vLLM", _attach_api_side)


def detach_api_side() -> None:
    """Gives the classes of vLLM's API process back as they were, whoever attached us to them."""
    if "api" in _state:
        _state.pop("api").undo()
    if "frontend" in _state:
        _state.pop("frontend").leave()


def _attach_api_side() -> None:
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415 - the SDK is imported where vLLM is not

    _after(_state["api"], EngineArgs, "create_engine_config", _configure)
    if "salt" in _state:  # a server that is already configured, left for a while
        _follow_requests()


def _attach_workers() -> None:
    from vllm.v1.worker.worker_base import WorkerWrapperBase  # noqa: PLC0415 - as above

    _after(_worker_side, WorkerWrapperBase, "init_device", _follow_worker)


def _attach_core() -> None:
    """Where requests are made for workers: in the engine's core alone, but which process that is is not known yet."""
    from vllm.v1.core.sched.output import NewRequestData  # noqa: PLC0415 - as above

    from introspan.capture.requests.engine_stamp import follow_core  # noqa: PLC0415 - imports nothing of torch

    follow_core(_worker_side, NewRequestData)


# Any: classes and configuration of vLLM.
def _after(patches: Patches, owner: Any, name: str, action: Callable[..., None]) -> None:
    """Runs an action after a method of the host, with the method's self and result; its errors stay here."""

    def around(original: Any) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            _guarded(name, action, self, result)
            return result

        return call

    patches.replace(owner, name, around)


def _guarded(what: str, action: Callable[..., None], *args: Any) -> None:
    try:
        action(*args)
    except SettingsError as error:
        _log.warning("introspan: capture is off: %s", error)
    except Exception:  # noqa: BLE001 - nothing of ours may raise into the host
        _log.warning("introspan: %s failed, the server runs without capture", what, exc_info=True)


def _configure(_: Any, config: Any) -> None:
    """In the API process: puts what shapes the graph into additional_config, so that it enters the compile key."""
    try:
        settings = _settings(config)
    except SettingsError:
        if isinstance(config.additional_config, dict):
            config.additional_config["introspan_sdk"] = _SAID_WRONG
        raise
    if settings.off_because is not None:
        _log.info("introspan: %s", settings.off_because)
        return
    if isinstance(config.additional_config, dict):
        config.additional_config.setdefault("introspan_sdk", _graph(settings))
    _state.setdefault("salt", settings.salt or os.urandom(16))
    _state.setdefault("again", (settings.reprefill_rate, settings.token_stride))
    if "frontend" not in _state:
        _follow_requests()
    if "pipeline" not in _state and not _is_allowed():
        _log.warning(
            "introspan: nothing is measured: VLLM_PLUGINS must name introspan for it to enter the workers, got %r",
            os.environ["VLLM_PLUGINS"],
        )


def _follow_requests() -> None:
    from introspan.capture.requests import frontend  # noqa: PLC0415 - imports nothing of torch until it is needed

    _state["frontend"] = frontend.install(_state["salt"], *_state["again"])


def _is_allowed() -> bool:
    """Whether vLLM lets our plugin into its processes."""
    allowed = os.environ.get("VLLM_PLUGINS")
    return allowed is None or "introspan" in allowed.split(",")


def _graph(settings: Settings) -> str:
    """What the compiled graph depends on: which streams are tapped, and by which version."""
    everywhere = bool(settings.canary_key)  # canaries are measured at every layer
    return f"{__version__} layers={settings.layers.wanted} projections={settings.projections} everywhere={everywhere}"


def _follow_worker(wrapper: Any, _: None) -> None:
    """In a worker whose device is ready: follows the runner from the moment its model is loaded."""
    config = wrapper.vllm_config
    if (
        isinstance(config.additional_config, dict)
        and config.additional_config.get("introspan_sdk") == _SAID_WRONG
    ):
        return
    settings = _settings(config)
    if settings.off_because is not None:
        return
    worker = wrapper.worker
    original = worker.model_runner.load_model

    @functools.wraps(original)
    def load_model(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        _guarded("following the model", _follow_model, worker, config, settings)
        return result

    worker.model_runner.load_model = load_model


def _follow_model(worker: Any, config: Any, settings: Settings) -> None:
    from introspan.capture.worker import follow  # noqa: PLC0415 - torch is there only in a worker
    from introspan.pipeline import Pipeline  # noqa: PLC0415 - as above

    follow(worker, config, settings, _state["pipeline"] or Pipeline)


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
