"""Outputs of vLLM's scheduler in; what a V1 runner with late tokens makes of them, as the adapter sees it, out."""

from types import SimpleNamespace

import numpy as np
import torch
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput
from vllm.v1.worker.gpu_model_runner import AsyncGPUModelRunnerOutput

from tests.device_double import END, MODEL_LENGTH, MOST_REQUESTS, VOCABULARY, Model, hold_back


class FirstRunner:
    """Keeps its batch in the order of arrival; a request that waits leaves it. The output is vLLM's own.

    reads_tokens: it waits for them itself, as it does where scheduling is not asynchronous.
    """

    reads_tokens = False

    def __init__(self) -> None:
        self.model, self.max_model_len = Model(), MODEL_LENGTH
        self.requests: dict[str, SimpleNamespace] = {}
        self.input_batch = SimpleNamespace(
            req_ids=[], num_computed_tokens_cpu=np.zeros(MOST_REQUESTS, np.int32), prev_sampled_token_ids=None
        )
        self.execute_model_state = None
        self.seeds: dict[str, int] = {}

    def execute_model(self, scheduled: SchedulerOutput):
        self._update_states(scheduled)
        if not scheduled.total_num_scheduled_tokens:
            return EMPTY_MODEL_RUNNER_OUTPUT
        self._prepare_inputs(scheduled)
        batch = self.input_batch
        counts = [scheduled.num_scheduled_tokens[key] for key in batch.req_ids]
        starts = batch.num_computed_tokens_cpu[: len(counts)].tolist()
        tokens = [
            (self.seeds[key], position)
            for key, start, count in zip(batch.req_ids, starts, counts, strict=True)
            for position in range(start, start + count)
        ]
        hidden = self.model(tokens, len(tokens))
        logits = self.model.compute_logits(hidden[np.cumsum(counts) - 1])
        whole = [
            start + count >= self.requests[key].tokens
            for key, start, count in zip(batch.req_ids, starts, counts, strict=True)
        ]
        self.execute_model_state = SimpleNamespace(logits=logits, whole=whole)
        return None

    def _update_states(self, scheduled: SchedulerOutput) -> None:
        cached = scheduled.scheduled_cached_reqs
        for key in scheduled.finished_req_ids:
            self.requests.pop(key, None)
        for new in scheduled.scheduled_new_reqs:
            self.requests[new.req_id] = SimpleNamespace(
                computed=new.num_computed_tokens, tokens=len(new.prompt_token_ids)
            )
        for key, computed in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
            self.requests[key].computed = computed
            if key in cached.resumed_req_ids:
                self.requests[key].tokens = len(cached.all_token_ids[key])
        batch = self.input_batch
        batch.req_ids = [key for key in self.requests if key in scheduled.num_scheduled_tokens]
        batch.num_reqs = len(batch.req_ids)
        for place, key in enumerate(batch.req_ids):
            batch.num_computed_tokens_cpu[place] = self.requests[key].computed

    def _prepare_inputs(self, scheduled: SchedulerOutput) -> None:
        pass

    def sample_tokens(self, _grammar) -> AsyncGPUModelRunnerOutput | ModelRunnerOutput:
        state, self.execute_model_state = self.execute_model_state, None
        ids, tokens = list(self.input_batch.req_ids), state.logits.argmax(dim=1, keepdim=True)
        tokens[~torch.tensor(state.whole)] = END  # something is drawn of a part of a prompt too
        state.logits.mul_(-0.5)
        for key, is_whole in zip(ids, state.whole, strict=True):
            self.requests[key].tokens += is_whole
        places = {key: place for place, key in enumerate(ids)}
        if self.reads_tokens:
            listed = [
                own if is_whole else [] for own, is_whole in zip(tokens.tolist(), state.whole, strict=True)
            ]
            return ModelRunnerOutput(ids, places, listed)
        self.input_batch.prev_sampled_token_ids = tokens
        late = AsyncGPUModelRunnerOutput(
            ModelRunnerOutput(ids, places),
            tokens.clone(),
            None,
            [place for place, is_whole in enumerate(state.whole) if not is_whole],
            SimpleNamespace(wait_stream=lambda _: None),
            VOCABULARY,
        )
        hold_back(late.async_copy_ready_event, late.sampled_token_ids_cpu.numpy())
        return late
