"""vLLM's V2 model runner in, calls to the recorder out.

Five methods of the runner instance and one of its model are wrapped; each calls the host's own and hands its result
through unchanged, and catches whatever ours raises. Dummy and profiling runs pass none of them. Read off vLLM 0.23 to
0.33, `v1/worker/gpu/model_runner.py`; the V2 runner is the default on GPUs from 0.25 on.
"""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from introspan.capture.health import Health
from introspan.capture.output.sampler import Sampling
from introspan.capture.runner.arrival import Drawn, arrival_of
from introspan.capture.runner.block_tables import RunnerTables, of_second
from introspan.capture.runner.edge import Edge
from introspan.capture.runner.v1_runner import configuration_refusal, foreign_processor
from introspan.capture.step.ending import ending_of
from introspan.capture.step.late_recorder import LateRecorder
from introspan.observation import Disabled, Request

METHODS = ("finish_requests", "add_requests", "prepare_inputs", "sample", "sample_tokens")
"""Methods of the runner that are wrapped."""

_ATTRIBUTES = ("model", "req_states", "max_model_len")
_BATCH = ("req_ids", "query_start_loc_np", "cu_num_logits_np", "num_computed_tokens_np", "prefill_len_np")

# Before it serves, a worker runs requests of its own making. The engine's end in eight hexadecimal digits.
_WARM_UP = re.compile(r"_\w*warmup_\w*_")

_NO_ROW = -1


# Any throughout: vLLM's runner, scheduler output and batches are duck-typed on purpose, so that a version that changes
# them is refused by `refusal` rather than failing at import.
def refusal(runner: Any, vllm_config: Any) -> str | None:
    """Why this runner cannot be followed, or None where it can."""
    missing = [name for name in METHODS + _ATTRIBUTES if not hasattr(runner, name)]
    missing += [f"InputBatch.{name}" for name in _BATCH if name not in _batch_fields(runner)]
    if missing:
        return (
            f"{type(runner).__name__} lacks {', '.join(missing)}; the V2 runner of vLLM 0.23 to 0.33 has them"
        )
    model_state = getattr(runner, "model_state", None)
    refusals = {
        "a model that draws several tokens a step has no row for each": (
            getattr(model_state, "num_new_sampled_tokens_per_step", 1) != 1
        ),
        "micro-batches pass the taps in parts": getattr(vllm_config.parallel_config, "use_ubatching", False),
    }
    return configuration_refusal(vllm_config) or next(
        (reason for reason, applies in refusals.items() if applies), None
    )


def _batch_fields(runner: Any) -> frozenset[str]:
    module = sys.modules[type(runner).__module__]
    return frozenset(getattr(getattr(module, "InputBatch", None), "__dataclass_fields__", ()))


def limits(runner: Any, vllm_config: Any) -> Iterator[Disabled]:
    """What of an engine that is followed is not measured, and why."""
    if vllm_config.speculative_config is not None:
        detail = "speculative decoding: decoded rows may be rejected; prompts alone are measured"
        yield Disabled("capture.decoded", "speculative_decoding", detail)
    if getattr(runner, "batch_sharder", None) is not None:
        detail = "each tensor-parallel rank draws for some of the requests, and none has the logits of all"
        yield Disabled("output", "logits_sharded", detail)
    sampler = getattr(runner, "sampler", None)
    if sampler is not None and type(sampler).__name__ != "Sampler":
        detail = f"the engine draws with {type(sampler).__name__}, which is not reproduced"
        yield Disabled("sampler", "custom_sampler", detail)
    foreign = foreign_processor(getattr(sampler, "logits_processors", ()))
    if foreign is not None:
        yield foreign


class V2Runner(Edge[LateRecorder]):
    """Follows one runner from the time its model is loaded.

    batches_alternate: steps of other requests come between those of a request, as in a pipeline of several stages.
    """

    def __init__(
        self,
        runner: Any,
        recorder: LateRecorder,
        health: Health,
        identify: Callable[[Any], Request | None],
        *,
        batches_alternate: bool = False,
        prompts_only: bool = False,
    ) -> None:
        super().__init__(recorder, health, identify)
        self._runner = runner
        self._tables = RunnerTables(runner, of_second)
        self._batches_alternate = batches_alternate
        self._prompts_only = prompts_only
        self._preempted: set[str] = set()
        self._batch: Any = None
        self._position = np.zeros(0, np.int64)
        self._drawn: Any = None
        self._keeps_logits = False
        runner.finish_requests = self._before(runner.finish_requests, self._hand_over)
        runner.add_requests = self._after(runner.add_requests, self._add)
        runner.prepare_inputs = self._preparing(runner.prepare_inputs)
        runner.sample = self._drawing(runner.sample)
        runner.sample_tokens = self._sampling(runner.sample_tokens)
        if hasattr(runner.model, "compute_logits"):
            runner.model.compute_logits = self._computing(runner.model.compute_logits)

    def _before(self, original: Callable[..., Any], action: Callable[[Any], None]) -> Callable[..., Any]:
        def call(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            self._guarded(lambda: action(scheduler_output))
            return original(scheduler_output, *args, **kwargs)

        return call

    def _after(self, original: Callable[..., Any], action: Callable[[Any], None]) -> Callable[..., Any]:
        def call(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(scheduler_output, *args, **kwargs)
            self._guarded(
                lambda: action(scheduler_output), needed=lambda: bool(scheduler_output.scheduled_new_reqs)
            )
            return result

        return call

    def _preparing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            batch = original(*args, **kwargs)
            self._guarded(lambda: self._begin_step(batch))
            return batch

        return call

    def _drawing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._keeps_logits = self._recorder.keeps_logits
            try:
                result = original(*args, **kwargs)
            finally:
                self._keeps_logits = False
            self._guarded(lambda: self._note(result))
            return result

        return call

    def _computing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            logits = original(*args, **kwargs)
            if self._keeps_logits:
                self._keeps_logits = False  # what is computed later is not what tokens are drawn from
                self._guarded(lambda: self._before_sampling(logits))
            return logits

        return call

    def _sampling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._guarded(
                lambda: self._recorder.after_forward(self._tables),
                needed=lambda: self._recorder.needs_block_tables,
            )
            result = original(*args, **kwargs)
            self._guarded(lambda: self._after_sampling(result), needed=lambda: self._batch is not None)
            self._batch = self._drawn = None
            return result

        return call

    def _hand_over(self, scheduler_output: Any) -> None:
        """Before anything of the coming step: the host gives blocks to others, and zeroes them."""
        recorder, finished = self._recorder, scheduler_output.finished_req_ids
        preempted = scheduler_output.preempted_req_ids or set()
        recorder.schedule()
        if self._must_flush(scheduler_output, finished | preempted):
            recorder.flush()
        self._preempted = (self._preempted | preempted) - finished
        for key in finished:
            self._finish(key)
        if not scheduler_output.num_scheduled_tokens:
            # The engine waits for the same tokens next: nothing it could do meanwhile is held up.
            recorder.settle()

    def _must_flush(self, scheduler_output: Any, lost: set[str]) -> bool:
        if not self._batches_alternate:
            return self._recorder.must_flush(scheduler_output.num_scheduled_tokens.keys() - lost)
        return bool(lost) and self._recorder.must_flush(self._runner.req_states.req_id_to_index.keys() - lost)

    def _add(self, scheduler_output: Any) -> None:
        for new in scheduler_output.scheduled_new_reqs:
            if new.req_id in self._preempted:
                self._preempted.discard(new.req_id)
                self._resume(new)
            elif _WARM_UP.fullmatch(new.req_id) is None:
                self._begin(new)

    def _resume(self, new: Any) -> None:
        """A request that was preempted comes as a new one: its tokens are prompt and delivered ones."""
        tokens = len(new.prefill_token_ids)
        if self._prompts_only and tokens > len(new.prompt_token_ids or ()):
            self._finish(new.req_id)  # its prompt is measured
            return
        # The row before its last token gave that token; what was drawn after it was not delivered.
        self._recorder.rewind(new.req_id, tokens - 2)

    def _follow(self, request: Request, sampling: Sampling, new: Any) -> None:
        most = self._runner.max_model_len
        self._recorder.begin_ending(
            request, sampling, ending_of(new.sampling_params, request.prompt_tokens, most)
        )

    def _begin_step(self, batch: Any) -> None:
        self._batch = batch
        start = batch.num_computed_tokens_np.astype(np.int64)
        scheduled = np.diff(batch.query_start_loc_np[: batch.num_reqs + 1]).astype(np.int64)
        if self._prompts_only:
            # Of a request with drafts how many of them count is known on the device alone.
            logits = np.diff(batch.cu_num_logits_np[: batch.num_reqs + 1])
            is_prompt = (start + scheduled == batch.prefill_len_np) & (logits == 1)
            start = np.where(is_prompt, start, _NO_ROW + 1 - scheduled)
        self._position = start + scheduled - 1
        self._recorder.begin_step(batch.req_ids, start, scheduled)

    def _before_sampling(self, logits: torch.Tensor | None) -> None:
        batch = self._batch
        last = batch.cu_num_logits_np[1 : batch.num_reqs + 1].astype(np.int64) - 1
        if logits is not None and logits.shape[0] <= last[-1]:
            raise RuntimeError(f"{logits.shape[0]} rows of logits, {last[-1] + 1} expected")
        self._recorder.before_sampling(logits, last)

    def _note(self, result: tuple[Any, ...]) -> None:
        self._drawn = result[0].sampled_token_ids

    def _after_sampling(self, output: Any) -> None:
        if self._recorder.has_rows:
            self._recorder.after_sampling(Drawn(self._drawn), None)
        self._recorder.sent(self._batch.req_ids, self._position, arrival_of(output))
