"""vLLM's model runners in; single steps that replay other graphs than they would have, or none, out.

What decides it is the engine's own: a dispatcher (V1) or a manager of graphs (V2). For the time of one step its
`dispatch` is asked again, in terms that it has itself: V1's leaves modes out for batches that they do not fit, and V2's
gives a batch with prompts in it no graph of decoding. So no step runs in a way in which the engine never runs one. Read
off vLLM 0.20 to 0.33, `v1/cudagraph_dispatcher.py` and `v1/worker/gpu/cudagraph_utils.py`.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

from introspan.capture.health import Health
from introspan.capture.runner.ladder import Ladder, Rung

_V1, _V2 = "cudagraph_dispatcher", "cudagraph_manager"
_PARAMETERS = {
    _V1: ("num_tokens", "valid_modes", "invalid_modes"),
    _V2: ("num_reqs", "num_tokens", "uniform_token_count"),
}
_OF_DECODING = ("uniform_token_count", "max_query_len")


# Any throughout: vLLM's runner, what decides on graphs, their modes and descriptors are duck-typed on purpose, so that
# a version that changes them is refused by `refusal` rather than failing at import.
class GraphModes:
    """How one runner's steps are run otherwise."""

    def __init__(self, runner: Any, vllm_config: Any, health: Health) -> None:
        self._runner = runner
        self._parallel = vllm_config.parallel_config
        self._health = health
        self._name = _V1 if hasattr(runner, _V1) else _V2

    def refusal(self, rung: Rung) -> str | None:
        """Why no step is run so, or None where it can be. To be asked when the engine serves."""
        decides = getattr(self._runner, self._name, None)
        mode = getattr(decides, "cudagraph_mode", None)
        if decides is None or mode is None or not hasattr(decides, "dispatch"):
            return f"{type(self._runner).__name__} has no {self._name} that decides on graphs"
        parameters = inspect.signature(decides.dispatch).parameters
        missing = [name for name in _PARAMETERS[self._name] if name not in parameters]
        if missing:
            return f"{type(decides).__name__}.dispatch takes no {', '.join(missing)}"
        refusals = {
            "workers that share a model have to replay the same graphs, and cannot agree on others": (
                max(self._parallel.tensor_parallel_size, self._parallel.pipeline_parallel_size) > 1
            ),
            "data-parallel ranks would all have to run steps otherwise for the sake of one": (
                self._parallel.data_parallel_size > 1
            ),
            f"with cudagraph_mode {mode.name} no graph is replayed": not (
                mode.has_full_cudagraphs() or mode.has_piecewise_cudagraphs()
            ),
            f"with cudagraph_mode {mode.name} there are no full graphs beside piecewise ones": (
                rung is Rung.PIECEWISE
                and not (mode.has_full_cudagraphs() and mode.has_piecewise_cudagraphs())
            ),
        }
        return next((reason for reason, applies in refusals.items() if applies), None)

    def follow(self, ladder: Ladder) -> None:
        """Runs the runner's steps from now on as the ladder has it."""
        original = self._runner.execute_model

        def call(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            restore = self._begin(ladder, scheduler_output, args, kwargs)
            try:
                return original(scheduler_output, *args, **kwargs)
            finally:
                restore()

        self._runner.execute_model = call

    def _begin(
        self, ladder: Ladder, scheduler_output: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], None]:
        """Before a step; what ends it."""
        try:
            # V2's third parameter; its dummy steps come this way too.
            is_dummy = kwargs.get("dummy_run", args[1] if len(args) > 1 else False)
            is_step = not is_dummy and scheduler_output.total_num_scheduled_tokens > 0
            rung = ladder.begin_step() if is_step else Rung.IN_GRAPH
            return _unchanged if rung is Rung.IN_GRAPH else self._lower(rung)
        except Exception as error:  # noqa: BLE001 - the edge of the host
            self._health.error("capture", error)
            return _unchanged

    def _lower(self, rung: Rung) -> Callable[[], None]:
        """For the time of one step: recording of graphs, dummy steps and drafts are left as they are."""
        # Looked up each time: engines make another one when they record their graphs again.
        own = vars(getattr(self._runner, self._name))
        before, dispatch = own.get("dispatch"), getattr(self._runner, self._name).dispatch
        again = (_V1_AGAIN if self._name == _V1 else _V2_AGAIN)[rung]
        own["dispatch"] = self._asking(dispatch, again)

        def restore() -> None:
            own.pop("dispatch", None)
            if before is not None:
                own["dispatch"] = before

        return restore

    def _asking(self, dispatch: Callable[..., Any], again: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(dispatch)

        @wraps(dispatch)  # `refusal` may be asked in such a step too
        def call(*args: Any, **kwargs: Any) -> Any:
            result = dispatch(*args, **kwargs)
            try:
                return again(dispatch, signature.bind(*args, **kwargs), result)
            except Exception as error:  # noqa: BLE001 - the edge of the host
                self._health.error("capture", error)
                return result

        return call


def _unchanged() -> None:
    """Nothing to take back."""


def _without(*names: str) -> Callable[..., Any]:
    """V1's: without these modes, unless the engine has said which are left."""

    def again(dispatch: Callable[..., Any], asked: inspect.BoundArguments, result: Any) -> Any:
        if asked.arguments.get("valid_modes") is not None:
            return result
        kinds = type(result[0])
        out = {getattr(kinds, name) for name in names}
        asked.arguments["invalid_modes"] = out | set(asked.arguments.get("invalid_modes") or ())
        return dispatch(*asked.args, **asked.kwargs)

    return again


def _as_mixed(dispatch: Callable[..., Any], asked: inspect.BoundArguments, result: Any) -> Any:
    """V2's: as if prompts were among the batch, which graphs of decoding cannot hold."""
    if not _is_whole(result):
        return result
    asked.arguments.update(dict.fromkeys(asked.arguments.keys() & set(_OF_DECODING)))
    return dispatch(*asked.args, **asked.kwargs)


def _as_without_graphs(_: Callable[..., Any], asked: inspect.BoundArguments, result: Any) -> Any:
    """V2's: as it answers where no graph fits."""
    if not _is_whole(result):
        return result
    none = {name: None for name in _OF_DECODING if hasattr(result, name)}
    mode = type(result.cg_mode).NONE
    own = {name: asked.arguments[name] for name in ("num_tokens", "num_reqs")}
    return replace(result, cg_mode=mode, **own, **none)


def _is_whole(result: Any) -> bool:
    """Whether a batch is not split: with micro-batches there are graphs for all parts or none."""
    return bool(getattr(result, "num_ubatches", 1) == 1)


_V1_AGAIN = {Rung.PIECEWISE: _without("FULL"), Rung.EAGER: _without("FULL", "PIECEWISE")}
_V2_AGAIN = {Rung.PIECEWISE: _as_mixed, Rung.EAGER: _as_without_graphs}
