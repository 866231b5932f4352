"""Outputs of vLLM's scheduler in; what a V2 runner without a GPU makes of them, as the adapter sees it, out.

The runner's bookkeeping, its batches and the output whose tokens come late are vLLM's own. Only what launches kernels
is played here, on the CPU.
"""

from types import SimpleNamespace

import numpy as np
import torch
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput
from vllm.v1.worker.gpu.async_utils import AsyncOutput
from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers
from vllm.v1.worker.gpu.model_runner import GPUModelRunner
from vllm.v1.worker.gpu.sample.output import SamplerOutput
from vllm.v1.worker.gpu.states import RequestState

from tests.device_double import END, MODEL_LENGTH, MOST_REQUESTS, MOST_TOKENS, VOCABULARY, Model, hold_back

_CPU = torch.device("cpu")


class Absorbing:
    """Takes any call and gives nothing: states of the device that no row depends on."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None


class States(RequestState):
    """The runner's requests, of which nothing has to be brought to a device."""

    def apply_staged_writes(self):
        pass


class Runner:
    """What the adapter sees of a V2 runner. padding: rows that a graph of a fixed size adds to every batch."""

    finish_requests = GPUModelRunner.finish_requests
    _remove_request = GPUModelRunner._remove_request
    add_requests = GPUModelRunner.add_requests
    update_requests = GPUModelRunner.update_requests
    gather_batch_req_state = GPUModelRunner.gather_batch_req_state

    def __init__(self, padding: int = 0) -> None:
        self.model, self.device = Model(), _CPU
        self.max_model_len, self.max_num_reqs = MODEL_LENGTH, MOST_REQUESTS
        self.req_states = States(MOST_REQUESTS, MODEL_LENGTH, MOST_TOKENS, 3, VOCABULARY, _CPU)
        drafts = 2 * MOST_REQUESTS
        self.input_buffers = InputBuffers(MOST_REQUESTS, MOST_TOKENS + drafts + padding, _CPU)
        self.model_state = self.block_tables = self.lora_state = self.sampler = Absorbing()
        self.prompt_logprobs_worker = Absorbing()
        self.pooling_runner = self.pp_handler = self.encoder_cache = self.pcp_manager = None
        self.adaptive_verification = self.execute_model_state = None
        self.is_last_pp_rank, self.use_pp, self.decode_query_len = True, False, 1
        self.main_stream = self.output_copy_stream = SimpleNamespace(wait_stream=lambda _: None)
        self.padding = padding
        self.seeds: dict[str, int] = {}

    def execute_model(self, scheduler_output: SchedulerOutput, dummy_run: bool = False):  # noqa: FBT001, FBT002 - vLLM's
        if not dummy_run:
            self.finish_requests(scheduler_output)
            self.add_requests(scheduler_output)
            self.update_requests(scheduler_output)
            if not scheduler_output.total_num_scheduled_tokens:
                return EMPTY_MODEL_RUNNER_OUTPUT
            state, _ = self.gather_batch_req_state(scheduler_output, False)  # noqa: FBT003 - vLLM's
            batch = self.prepare_inputs(scheduler_output, state)
        else:
            batch = InputBatch.make_dummy(2, 5, self.input_buffers)
        hidden = self._forward(batch, is_dummy=dummy_run)
        self.execute_model_state = None if dummy_run else SimpleNamespace(input_batch=batch, hidden=hidden)
        return None

    def prepare_inputs(self, scheduler_output: SchedulerOutput, state) -> InputBatch:
        """As vLLM's, of arrays that it makes on the host, and tensors that it would make on the device."""
        of, n = self.req_states, len(state.req_ids)
        drafts = scheduler_output.scheduled_spec_decode_tokens
        counts = np.array([len(drafts.get(key, ())) for key in state.req_ids], np.int32)
        starts = np.zeros(n + 1, np.int32)
        np.cumsum(state.num_scheduled_tokens, out=starts[1:])
        cumulated = np.zeros(n + 1, np.int32)
        np.cumsum(counts + 1, out=cumulated[1:])
        computed = of.num_computed_tokens_np[state.idx_mapping_np]
        ends = torch.from_numpy(starts[1:].astype(np.int64))
        each = [
            torch.arange(int(end) - int(count) - 1, int(end)) for end, count in zip(ends, counts, strict=True)
        ]
        lengths = torch.from_numpy(computed + state.num_scheduled_tokens)
        padded = state.num_tokens + self.padding
        positions = self.input_buffers.positions[:padded]
        positions[: state.num_tokens] = torch.cat(
            [
                torch.arange(int(length) - int(count), int(length))
                for length, count in zip(lengths, state.num_scheduled_tokens, strict=True)
            ]
        )
        mapping = torch.from_numpy(state.idx_mapping_np.astype(np.int64))
        return InputBatch(
            req_ids=state.req_ids,
            num_reqs=n,
            num_reqs_after_padding=n,
            idx_mapping=mapping,
            idx_mapping_np=state.idx_mapping_np,
            expanded_idx_mapping=mapping,
            expanded_local_pos=torch.zeros(n, dtype=torch.int32),
            num_scheduled_tokens=state.num_scheduled_tokens,
            num_tokens=state.num_tokens,
            num_tokens_after_padding=padded,
            num_draft_tokens=int(counts.sum()),
            num_draft_tokens_per_req=counts if drafts else None,
            query_start_loc=torch.from_numpy(starts),
            query_start_loc_np=starts,
            seq_lens=lengths,
            seq_lens_cpu_upper_bound=lengths,
            dcp_local_seq_lens=None,
            num_computed_tokens_np=computed,
            prefill_len_np=state.prefill_len_np,
            num_computed_prefill_tokens_np=state.num_computed_prefill_tokens_np,
            is_prefilling_np=state.is_prefilling_np,
            has_prefill=state.has_prefill,
            decode_graph_eligible=state.decode_graph_eligible,
            input_ids=self.input_buffers.input_ids[:padded],
            positions=positions,
            is_padding=self.input_buffers.is_padding[:padded],
            logits_indices=torch.cat(each),
            cu_num_logits=torch.from_numpy(cumulated),
            cu_num_logits_np=cumulated,
            has_structured_output_reqs=False,
            prompt_lens=None,
        )

    def _forward(self, batch: InputBatch, *, is_dummy: bool) -> torch.Tensor:
        owner = np.repeat(np.arange(batch.num_reqs), batch.num_scheduled_tokens).tolist()
        tokens = zip(owner, batch.positions.tolist(), strict=False)
        known = (
            [] if is_dummy else [(self.seeds[batch.req_ids[place]], position) for place, position in tokens]
        )
        return self.model(known, batch.num_tokens_after_padding)

    def sample(self, hidden, batch: InputBatch, grammar):  # noqa: ARG002 - vLLM's
        raw = self.model.compute_logits(hidden[batch.logits_indices])
        last = raw[torch.from_numpy(batch.cu_num_logits_np[1:].astype(np.int64)) - 1]
        tokens = last.argmax(dim=1, keepdim=True)
        raw.mul_(-0.5)  # a grammar, a temperature: logits are written to before and while tokens are drawn
        is_whole = (batch.num_computed_tokens_np + batch.num_scheduled_tokens) >= batch.prefill_len_np
        tokens[torch.from_numpy(~is_whole)] = END  # something is drawn of a part of a prompt too
        counts = torch.from_numpy(is_whole.astype(np.int32))
        output = SamplerOutput(tokens, None, None, counts, torch.zeros_like(counts))
        return output, counts, output.num_rejected

    def sample_tokens(self, grammar) -> AsyncOutput:
        state, self.execute_model_state = self.execute_model_state, None
        batch = state.input_batch
        output, counts, _ = self.sample(state.hidden, batch, grammar)
        self.model.compute_logits(state.hidden[: batch.num_tokens])  # as for log-probabilities of prompts
        answer = ModelRunnerOutput(batch.req_ids, {key: i for i, key in enumerate(batch.req_ids)})
        late = AsyncOutput(answer, output, counts, self.main_stream, self.output_copy_stream, False, None)  # noqa: FBT003 - vLLM's
        hold_back(late.copy_event, late.sampled_token_ids, late.num_sampled_tokens_np)
        return late
