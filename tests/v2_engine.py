"""A schedule of requests in; what vLLM's scheduler gives a V2 runner to do, and what clients get, out."""

import json
from collections import deque
from dataclasses import dataclass, field

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.request import Request as EngineRequest
from vllm.v1.request import RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from tests.device_double import (
    END,
    LAYERS,
    MODEL_LENGTH,
    MOST_REQUESTS,
    MOST_TOKENS,
    VOCABULARY,
    WIDTH,
    Event,
)
from tests.v1_double import FirstRunner
from tests.v2_double import Runner

BLOCK_TOKENS = 4


@dataclass(frozen=True)
class Plan:
    """One request: how long its prompt is, what ends it, before which step it comes and before which it is aborted."""

    prompt: int
    most: int
    ends: bool = True
    at: int = 0
    abort_at: int | None = None


@dataclass
class Engine:
    """`EngineCore`'s step over a batch queue. delivered: what clients got; waits: how often we waited for tokens."""

    scheduler: Scheduler
    runner: Runner | FirstRunner
    depth: int
    queue: deque = field(default_factory=deque)
    delivered: dict[str, list[int]] = field(default_factory=dict)
    aborts: list[str] = field(default_factory=list)
    waits: int = 0
    has_run: bool = False
    """Whether the last step ran anything."""
    preemptions: int = 0
    aborts_between_steps: bool = False

    def add(self, key: str, plan: Plan, seed: int) -> None:
        params = SamplingParams(temperature=0.0, max_tokens=plan.most, ignore_eos=not plan.ends)
        params.update_from_generation_config({}, eos_token_id=END)
        self.runner.seeds[key] = seed
        self.delivered.setdefault(key, [])
        prompt = [4] * plan.prompt
        self.scheduler.add_request(EngineRequest(key, prompt, params, None))

    def step(self, *, is_early: bool = False) -> None:
        """is_early: whether the oldest step is done before the queue is full."""
        if self.aborts_between_steps:
            self.abort()
        has_run = False
        if self.scheduler.has_requests():
            scheduled = self.scheduler.schedule()
            self.preemptions += len(scheduled.preempted_req_ids or ())
            before = self._waits()
            output = self.runner.execute_model(scheduled)
            has_run = self.has_run = scheduled.total_num_scheduled_tokens > 0
            if has_run:
                output = self.runner.sample_tokens(None)
                self.waits += self._waits() - before
            self.queue.appendleft((output, scheduled))
            is_full = len(self.queue) >= self.depth
            if not is_full and not is_early and (has_run or self.scheduler.has_requests()):
                return
        elif not self.queue:
            return
        output, scheduled = self.queue.pop()
        answer = output if _event(output) is None else output.get_output()
        self.abort()
        for outputs in self.scheduler.update_from_output(scheduled, answer).values():
            for each in outputs.outputs:
                self.delivered[each.request_id] += each.new_token_ids

    def _waits(self) -> int:
        return sum(event.waits for output, _ in self.queue if (event := _event(output)) is not None)

    def abort(self) -> None:
        """Aborts what clients have left, as the engine does before it looks at tokens."""
        aborted, self.aborts = self.aborts, []
        self.scheduler.finish_requests(aborted, RequestStatus.FINISHED_ABORTED)

    @property
    def is_idle(self) -> bool:
        return not self.queue and not self.scheduler.has_requests()


def _event(output) -> Event | None:
    """What says that the tokens of an output are there; None where there are none."""
    return getattr(output, "copy_event", getattr(output, "async_copy_ready_event", None))


def configuration(folder, monkeypatch, *, is_v2: bool = True):
    """vLLM's configuration of an engine."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_attention_heads": 1,
        "num_hidden_layers": LAYERS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": MODEL_LENGTH,
    }
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("VLLM_PLUGINS", "")
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    made = EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        max_model_len=MODEL_LENGTH,
        max_num_seqs=MOST_REQUESTS,
        max_num_batched_tokens=MOST_TOKENS,
        block_size=BLOCK_TOKENS,
        enable_prefix_caching=False,
        enforce_eager=True,
    ).create_engine_config()
    # Not before: where there is no Triton, vLLM refuses it as it is asked for an engine that runs.
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", str(int(is_v2)))
    return made


def scheduler_of(config, blocks: int, *, is_async: bool) -> Scheduler:
    """vLLM's scheduler, with so many blocks of keys."""
    config.scheduler_config.async_scheduling = is_async
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=BLOCK_TOKENS, num_kv_heads=1, head_size=WIDTH, dtype=torch.float32)
    cache = KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)])
    kind = AsyncScheduler if is_async else Scheduler
    return kind(config, cache, StructuredOutputManager(config), block_size=BLOCK_TOKENS)
