"""vLLM's V1 model runner in, calls to the recorder out.

Four methods of the runner instance are wrapped; each calls the host's own first or hands its result through
unchanged, and catches whatever ours raises. Read off vLLM 0.32.0, `v1/worker/gpu_model_runner.py`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from introspan.capture.health import Health
from introspan.capture.runner.edge import Edge, RecorderT
from introspan.observation import Disabled, Request

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
    if vllm_config.speculative_config is not None:
        return "speculative decoding schedules rows that may be rejected, which is not followed with the V1 runner"
    return configuration_refusal(vllm_config)


def configuration_refusal(vllm_config: Any) -> str | None:
    """Why an engine of this configuration cannot be followed, or None where it can."""
    parallel = vllm_config.parallel_config
    refusals = {
        "context parallelism spreads the keys of a request over ranks, none of which has them all": (
            max(parallel.prefill_context_parallel_size, parallel.decode_context_parallel_size) > 1
        ),
        "with kv_sharing_fast_prefill layers leave rows out": (
            getattr(getattr(vllm_config, "cache_config", None), "kv_sharing_fast_prefill", False)
        ),
        "a pooling model generates no tokens": vllm_config.model_config.runner_type == "pooling",
    }
    return next((reason for reason, applies in refusals.items() if applies), None)


def limits(runner: Any, vllm_config: Any) -> Iterator[Disabled]:  # noqa: ARG001 - what another adapter looks at
    """What of an engine that is followed is not measured, and why."""
    foreign = foreign_processor(runner.input_batch.logitsprocs.all)
    if foreign is not None:
        yield foreign


class V1Runner(Edge[RecorderT]):
    """Follows one runner from the time its model is loaded.

    batches_alternate: steps of other requests come between those of a request, as in a pipeline of several stages.
    """

    def __init__(
        self,
        runner: Any,
        recorder: RecorderT,
        health: Health,
        identify: Callable[[Any], Request | None],
        *,
        batches_alternate: bool = False,
    ) -> None:
        super().__init__(recorder, health, identify)
        self._runner = runner
        self._batches_alternate = batches_alternate
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

    def _after_prepare(self, scheduler_output: Any) -> None:
        batch = self._runner.input_batch
        ids = batch.req_ids
        counts = scheduler_output.num_scheduled_tokens
        scheduled = np.array([counts[key] for key in ids], np.int64)
        self._begin_step(ids, batch.num_computed_tokens_cpu[: len(ids)].astype(np.int64), scheduled)

    def _begin_step(
        self,
        ids: list[str],
        start: np.ndarray[Any, np.dtype[np.int64]],
        scheduled: np.ndarray[Any, np.dtype[np.int64]],
    ) -> None:
        self._recorder.begin_step(ids, start, scheduled)

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


def foreign_processor(processors: Iterable[object]) -> Disabled | None:
    """Why sampler signals are not measured beside a logits processor that is not vLLM's own; None without one."""
    names = [type(each).__module__ + "." + type(each).__name__ for each in processors]
    foreign = next((name for name in names if not name.startswith("vllm.")), None)
    if foreign is None:
        return None
    detail = f"the engine runs {foreign}, whose effect on the distribution is not reproduced"
    return Disabled("sampler", "custom_logits_processor", detail)
