"""A mode of CUDA graphs in; runners whose own choice of graphs is vLLM's, as if it had recorded them, out."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.config import CompilationConfig, CompilationMode, CUDAGraphMode
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
from vllm.v1.worker.gpu import cudagraph_utils
from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager
from vllm.v1.worker.gpu.dp_utils import dispatch_cg_and_sync_dp
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

SIZES, MOST_REQUESTS = [1, 2, 4, 8, 16], 8


def engine_config(mode: str, **parallel: int) -> SimpleNamespace:
    """As much of an engine's configuration as its choice of graphs needs."""
    compilation = CompilationConfig(
        mode=CompilationMode.VLLM_COMPILE,
        cudagraph_mode=CUDAGraphMode[mode],
        cudagraph_capture_sizes=SIZES,
        max_cudagraph_capture_size=SIZES[-1],
        splitting_ops=list(CompilationConfig._attention_ops),
    )
    sizes = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "data_parallel_size": 1}
    return SimpleNamespace(
        compilation_config=compilation,
        scheduler_config=SimpleNamespace(max_num_seqs=MOST_REQUESTS),
        parallel_config=SimpleNamespace(**sizes | parallel),
        cache_config=SimpleNamespace(use_kda_recoverssm=False),
        lora_config=None,
        observability_config=SimpleNamespace(cudagraph_metrics=False),
        speculative_config=None,
        num_speculative_tokens=0,
    )


class Engine:
    """What both runners have in common. prepare, run: called in each step, run with the mode that was chosen."""

    def __init__(self, prepare: Callable[[], None], run: Callable[[CUDAGraphMode], None]) -> None:
        self.prepare, self.run = prepare, run
        self.modes: list[str] = []
        self.tokens: list[int] = []

    def forward(self, mode: CUDAGraphMode, tokens: int) -> None:
        self.modes.append(mode.name)
        self.tokens.append(tokens)
        self.run(mode)


class V1(Engine):
    """Puts the batch together, then asks by vLLM's own method."""

    _determine_batch_execution_and_padding = GPUModelRunner._determine_batch_execution_and_padding
    _is_uniform_decode = staticmethod(GPUModelRunner._is_uniform_decode)

    def __init__(
        self,
        config: SimpleNamespace,
        prepare: Callable[[], None] = lambda: None,
        run: Callable[[CUDAGraphMode], None] = lambda _: None,
    ) -> None:
        super().__init__(prepare, run)
        self.vllm_config, self.parallel_config = config, config.parallel_config
        self.model_config = SimpleNamespace(is_encoder_decoder=False)
        self.input_batch = SimpleNamespace(lora_id_to_lora_request={})
        self.uniform_decode_query_len = 1
        self.cudagraph_dispatcher = CudagraphDispatcher(config)
        self.cudagraph_dispatcher.initialize_cudagraph_keys(config.compilation_config.cudagraph_mode)

    def execute_model(self, scheduler_output, intermediate_tensors=None):  # noqa: ARG002 - vLLM's
        counts = np.array(list(scheduler_output.num_scheduled_tokens.values()))
        if not counts.size:
            return
        self.prepare()
        mode, chosen, *_ = self._determine_batch_execution_and_padding(
            num_tokens=int(counts.sum()),
            num_reqs=counts.size,
            num_scheduled_tokens_np=counts,
            max_num_scheduled_tokens=int(counts.max()),
        )
        self.forward(mode, chosen.num_tokens)


class V2(Engine):
    """Asks by vLLM's own function, then puts the batch together."""

    def __init__(
        self,
        config: SimpleNamespace,
        prepare: Callable[[], None] = lambda: None,
        run: Callable[[CUDAGraphMode], None] = lambda _: None,
    ) -> None:
        super().__init__(prepare, run)
        self.config = config
        self.record()

    def record(self) -> None:
        """Makes a manager, and takes its graphs for recorded."""
        mode = self.config.compilation_config.cudagraph_mode
        stage = SimpleNamespace(is_first_rank=True, is_last_rank=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cudagraph_utils, "get_pp_group", lambda: stage)
            patch.setattr(cudagraph_utils.current_platform, "get_global_graph_pool", lambda: None)
            manager = ModelCudaGraphManager(self.config, torch.device("cpu"), mode, decode_query_len=1)
        manager._graphs_captured = True
        self.cudagraph_manager = manager

    def execute_model(self, scheduler_output, intermediate_tensors=None, dummy_run=False):  # noqa: ARG002, FBT002 - vLLM's
        counts = list(scheduler_output.num_scheduled_tokens.values())
        if not counts:
            return
        is_decode = max(counts) == 1
        chosen, _ = dispatch_cg_and_sync_dp(
            self.cudagraph_manager,
            len(counts),
            sum(counts),
            1 if is_decode else None,
            1,
            0,
            max_query_len=1 if is_decode else None,
        )
        if not dummy_run:
            self.prepare()
        self.forward(chosen.cg_mode, chosen.num_tokens)


def step(*tokens: int) -> SimpleNamespace:
    """What a scheduler hands over of requests with so many tokens each."""
    return SimpleNamespace(
        num_scheduled_tokens={f"r{i}": count for i, count in enumerate(tokens)},
        total_num_scheduled_tokens=sum(tokens),
    )
