"""vLLM's V1 model runner in, calls to the recorder out.

Four methods of the runner instance are wrapped; each calls the host's own first or hands its result through
unchanged, and catches whatever ours raises. Read off vLLM 0.32.0, `v1/worker/gpu_model_runner.py`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from introspan.capture.health import Health
from introspan.capture.recorder import Recorder
from introspan.capture.sampler import requested
from introspan.capture.turn import Turn
from introspan.observation import Request

METHODS = ("_update_states", "_prepare_inputs", "sample_tokens")
"""Methods of the runner that are wrapped."""

_ATTRIBUTES = ("execute_model_state", "input_batch", "requests")


# Any throughout: vLLM's runner, scheduler output and request states are duck-typed on purpose, so that a version
# that changes them is refused by `refusal` rather than failing at import.
def refusal(runner: Any, vllm_config: Any) -> str | None:
    """Why this runner cannot be followed, or None where it can."""
    missing = [name for name in METHODS + _ATTRIBUTES if not hasattr(runner, name)]
    if missing:
        return f"{type(runner).__name__} lacks {', '.join(missing)}; the V1 runner of vLLM 0.32 has them"
    return configuration_refusal(vllm_config)


def configuration_refusal(vllm_config: Any) -> str | None:
    """Why an engine of this configuration cannot be followed, or None where it can."""
    parallel = vllm_config.parallel_config
    refusals = {
        "the V2 model runner is not followed yet; VLLM_USE_V2_MODEL_RUNNER=0 chooses V1": (
            vllm_config.use_v2_model_runner
        ),
        "asynchronous scheduling delivers tokens a step later, which is not followed yet": (
            vllm_config.scheduler_config.async_scheduling
        ),
        "speculative decoding schedules rows that may be rejected, which is not followed yet": (
            vllm_config.speculative_config is not None
        ),
        "context parallelism spreads the keys of a request over ranks, none of which has them all": (
            max(parallel.prefill_context_parallel_size, parallel.decode_context_parallel_size) > 1
        ),
        "a pooling model generates no tokens": vllm_config.model_config.runner_type == "pooling",
    }
    return next((reason for reason, applies in refusals.items() if applies), None)


class V1Runner:
    """Follows one runner from the time its model is loaded.

    batches_alternate: steps of other requests come between those of a request, as in a pipeline of several stages.
    """

    def __init__(
        self,
        runner: Any,
        recorder: Recorder,
        health: Health,
        identify: Callable[[Any], Request | None],
        *,
        batches_alternate: bool = False,
    ) -> None:
        self._runner = runner
        self._batches_alternate = batches_alternate
        self._recorder = recorder
        self._health = health
        self._identify = identify
        self._turn = Turn(health)
        self._stopped = False
        runner._update_states = self._updating(runner._update_states)  # noqa: SLF001 - vLLM has no public seam here
        runner._prepare_inputs = self._preparing(runner._prepare_inputs)  # noqa: SLF001 - as above
        runner.sample_tokens = self._sampling(runner.sample_tokens)

    def _updating(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            # Before: the host zeroes blocks that were given to others.
            self._guarded(self._recorder.flush, needed=lambda: self._must_flush(scheduler_output))
            result = original(scheduler_output, *args, **kwargs)
            self._guarded(
                lambda: self._after_update(scheduler_output), needed=lambda: _changes(scheduler_output)
            )
            return result

        return call

    def _preparing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(scheduler_output, *args, **kwargs)
            self._guarded(lambda: self._after_prepare(scheduler_output))
            return result

        return call

    def _sampling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._guarded(self._before_sampling, needed=lambda: self._recorder.keeps_logits)
            result = original(*args, **kwargs)
            self._guarded(lambda: self._after_sampling(result), needed=lambda: self._recorder.has_rows)
            return result

        return call

    def _guarded(self, action: Callable[[], None], needed: Callable[[], bool] = lambda: True) -> None:
        """Nothing of ours may raise into the host: an error drops the rows at hand and is counted."""
        try:
            if not self._health.is_on("capture"):
                self._stop()
            elif needed():
                with self._turn:
                    action()
        except Exception as error:  # noqa: BLE001 - the edge of the host
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._health.error("capture", error)
        self._recorder.discard()

    def _stop(self) -> None:
        """Leaves the taps alone once capture was switched off, possibly in the middle of a step."""
        if not self._stopped:
            self._stopped = True
            self._recorder.discard()

    def _must_flush(self, scheduler_output: Any) -> bool:
        if not self._batches_alternate:
            return self._recorder.must_flush(scheduler_output.num_scheduled_tokens.keys())
        lost = scheduler_output.finished_req_ids | (scheduler_output.preempted_req_ids or set())
        return bool(lost) and self._recorder.must_flush(self._runner.requests.keys() - lost)

    def _after_update(self, scheduler_output: Any) -> None:
        for key in scheduler_output.finished_req_ids:
            self._finish(key)
        for new in scheduler_output.scheduled_new_reqs:
            self._begin(new)

    def _finish(self, key: str) -> None:
        """Ends a request; an error is counted here, so that those after it end and begin all the same."""
        try:
            self._recorder.finish(key)
        except Exception as error:  # noqa: BLE001 - as in _guarded, of one request
            self._failed(error)

    def _begin(self, new: Any) -> None:
        """Follows a new request; what is odd about one costs no other its measurement."""
        try:
            request = self._identify(new)
            sampling = requested(new.sampling_params) if request is not None else None
        except Exception as error:  # noqa: BLE001 - the request's own: nothing of others is touched yet
            self._health.odd_request(error)
            return
        if request is None or sampling is None:
            return
        try:
            self._recorder.begin(request, sampling)
        except Exception as error:  # noqa: BLE001 - as in _guarded, of one request
            self._failed(error)

    def _after_prepare(self, scheduler_output: Any) -> None:
        batch = self._runner.input_batch
        ids = batch.req_ids
        counts = scheduler_output.num_scheduled_tokens
        scheduled = np.array([counts[key] for key in ids], np.int64)
        self._recorder.begin_step(ids, batch.num_computed_tokens_cpu[: len(ids)].astype(np.int64), scheduled)

    def _before_sampling(self) -> None:
        state = self._runner.execute_model_state
        logits = None if state is None else state.logits
        if logits is not None and logits.shape[0] != self._runner.input_batch.num_reqs:
            raise RuntimeError(
                f"{logits.shape[0]} rows of logits for {self._runner.input_batch.num_reqs} requests"
            )
        self._recorder.before_sampling(logits)

    def _after_sampling(self, output: Any) -> None:
        batch = self._runner.input_batch

        def token(place: int) -> int:
            return int(output.sampled_token_ids[place][0])

        def generated(place: int) -> np.ndarray[Any, np.dtype[np.int32]]:
            start, stop = batch.num_prompt_tokens[place], batch.num_tokens_no_spec[place]
            stream: np.ndarray[Any, np.dtype[np.int32]] = batch.token_ids_cpu[place, start:stop]
            return stream

        # A pipeline stage that draws no tokens is called here all the same, and gives nothing that either could ask.
        self._recorder.after_sampling(token, generated)


def _changes(scheduler_output: Any) -> bool:
    """Whether requests end or begin with the step."""
    return bool(scheduler_output.finished_req_ids or scheduler_output.scheduled_new_reqs)


def foreign_processor(runner: Any) -> str | None:
    """The name of a logits processor that is not vLLM's own, or None: what it does is not reproduced."""
    loaded = runner.input_batch.logitsprocs
    names = [type(each).__module__ + "." + type(each).__name__ for each in loaded.all]
    return next((name for name in names if not name.startswith("vllm.")), None)
