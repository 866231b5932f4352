"""vLLM's V1 model runner in, calls to the recorder out: as v1_runner.py, where scheduling is asynchronous.

Tokens stay on the device until a copy of them has come, and what the batch keeps of them on the host are placeholders.
Read off vLLM 0.20 to 0.33.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from introspan.capture.output.sampler import Sampling
from introspan.capture.runner.arrival import arrival_of, drawn_of
from introspan.capture.runner.block_tables import RunnerTables, of_first
from introspan.capture.runner.v1_runner import V1Runner
from introspan.capture.step.ending import ending_of
from introspan.capture.step.late_recorder import LateRecorder
from introspan.observation import Request


# Any throughout: as in v1_runner.py.
class LateV1Runner(V1Runner[LateRecorder]):
    """Follows one runner from the time its model is loaded."""

    _ids: list[str] | None = None
    _position = np.zeros(0, np.int64)

    @cached_property
    def _tables(self) -> RunnerTables:
        return RunnerTables(self._runner, of_first)

    def _updating(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            # Before: the host zeroes blocks that were given to others.
            self._guarded(lambda: self._before_update(scheduler_output))
            result = original(scheduler_output, *args, **kwargs)
            self._guarded(lambda: self._after_update(scheduler_output))
            return result

        return call

    def _sampling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._guarded(
                lambda: self._recorder.after_forward(self._tables),
                needed=lambda: self._recorder.needs_block_tables,
            )
            self._guarded(self._before_sampling, needed=lambda: self._recorder.keeps_logits)
            result = original(*args, **kwargs)
            self._guarded(lambda: self._after_sampling(result), needed=lambda: self._ids is not None)
            self._ids = None
            return result

        return call

    def _before_update(self, scheduler_output: Any) -> None:
        self._recorder.schedule()
        if self._must_flush(scheduler_output):
            self._recorder.flush()

    def _after_update(self, scheduler_output: Any) -> None:
        super()._after_update(scheduler_output)
        cached = scheduler_output.scheduled_cached_reqs
        for key in cached.resumed_req_ids:
            # The row before its last token gave that token; what was drawn after it was not delivered.
            self._recorder.rewind(key, len(cached.all_token_ids[key]) - 2)
        if not scheduler_output.num_scheduled_tokens:
            # The engine waits for the same tokens next: nothing it could do meanwhile is held up.
            self._recorder.settle()

    def _follow(self, request: Request, sampling: Sampling, new: Any) -> None:
        most = self._runner.max_model_len
        self._recorder.begin_ending(
            request, sampling, ending_of(new.sampling_params, request.prompt_tokens, most)
        )

    def _begin_step(self, ids: list[str], start: Any, scheduled: Any) -> None:
        self._ids, self._position = list(ids), start + scheduled - 1
        super()._begin_step(ids, start, scheduled)

    def _after_sampling(self, output: Any) -> None:
        if self._recorder.has_rows:
            sampled = self._runner.input_batch.prev_sampled_token_ids
            self._recorder.after_sampling(drawn_of(output, sampled), None)
        self._recorder.sent(self._ids or [], self._position, arrival_of(output))
