"""Nothing in, everything of vLLM's that our files rely on out: one line for each, by what is lost without it."""

from compat.surface import Surface, Use
from introspan.capture.requests.endpoints import PLACES

_ARGS = "vllm.engine.arg_utils:EngineArgs"
_CONFIG = "vllm.config"
_ASYNC = "vllm.v1.engine.async_llm:AsyncLLM"
_SERVING = tuple(f"{module}:{name}" for module, name in PLACES)
_WORKER = "vllm.v1.worker.worker_base:WorkerWrapperBase"
_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_BATCH = "vllm.v1.worker.gpu_input_batch:InputBatch"
_SCHEDULED = "vllm.v1.core.sched.output"
_PARAMS = "vllm.sampling_params:SamplingParams"
_ATTENTION = "vllm.model_executor.layers.attention.attention:Attention"
_CPU = "vllm.v1.attention.backends.cpu_attn"
_V2 = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"
_CACHE = "vllm.v1.kv_cache_interface"
_V2_BATCH = "vllm.v1.worker.gpu.input_batch:InputBatch"

_CALLED_FORWARD = ("layer", "query", "key", "value", "kv_cache", "attn_metadata")
"""What vLLM gives an attention implementation by place, and our wrapper reads by place."""


def _all(use: Use, owner: str, *members: str) -> tuple[Surface, ...]:
    return tuple(Surface(use, f"{owner}.{member}") for member in members)


_PLUGIN = (
    Surface(Use.ATTACH, "vllm:__version__"),
    Surface(Use.ATTACH, "vllm.plugins:load_general_plugins"),
    Surface(Use.ATTACH, "vllm.plugins:DEFAULT_PLUGINS_GROUP", value="vllm.general_plugins"),
    Surface(Use.ATTACH, f"{_ARGS}.create_engine_config"),
    Surface(Use.ATTACH, f"{_WORKER}.init_device"),
    *_all(Use.ATTACH, _WORKER, "vllm_config", "worker"),
    Surface(Use.ATTACH, "vllm.v1.worker.gpu_worker:Worker.compile_or_warm_up_model"),
    *_all(
        Use.ATTACH,
        f"{_CONFIG}.vllm:VllmConfig",
        *("additional_config", "model_config", "parallel_config", "scheduler_config"),
        *("load_config", "speculative_config"),
    ),
    *_all(
        Use.ATTACH,
        f"{_CONFIG}.model:ModelConfig",
        *("hf_config", "hf_text_config", "get_hidden_size", "dtype", "served_model_name"),
        *("runner_type", "model", "tokenizer", "revision"),
    ),
    *_all(
        Use.ATTACH,
        f"{_CONFIG}.parallel:ParallelConfig",
        *(
            "prefill_context_parallel_size",
            "decode_context_parallel_size",
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "rank",
            "data_parallel_rank",
            "data_parallel_size",
        ),
    ),
    *_all(Use.ATTACH, f"{_CONFIG}.scheduler:SchedulerConfig", "max_num_seqs", "async_scheduling"),
    Surface(Use.ATTACH, f"{_CONFIG}.load:LoadConfig.download_dir"),
)

_API = (
    Surface(Use.CALLERS, f"{_ASYNC}.__init__"),
    Surface(
        Use.CALLERS,
        f"{_ASYNC}.generate",
        leading=("prompt", "sampling_params", "request_id"),
        named=("lora_request", "trace_headers", "priority"),
    ),
    *(
        Surface(
            Use.CALLERS,
            f"{_SERVING[0]}.{method}",
            leading=(first,),
            elsewhere=tuple(f"{place}.{method}" for place in _SERVING[1:]),
        )
        for method, first in (("_get_trace_headers", "headers"), ("_check_model", "request"))
    ),
    Surface(Use.CALLERS, f"{_PARAMS}.extra_args"),
)

_FIRST_RUNNER = (
    Surface(Use.V1, f"{_RUNNER}._update_states", leading=("scheduler_output",)),
    Surface(Use.V1, f"{_RUNNER}._prepare_inputs", leading=("scheduler_output",)),
    Surface(Use.V1, f"{_RUNNER}.sample_tokens", leading=("grammar_output",)),
    *_all(
        Use.V1,
        _RUNNER,
        *("load_model", "get_model", "execute_model_state", "input_batch", "requests", "device", "model"),
    ),
    Surface(Use.V1, "vllm.v1.worker.gpu_model_runner:ExecuteModelState.logits"),
    *_all(
        Use.V1,
        _BATCH,
        *("req_ids", "num_reqs", "num_computed_tokens_cpu", "num_prompt_tokens", "num_tokens_no_spec"),
        *("token_ids_cpu", "logitsprocs"),
    ),
    *_all(
        Use.V1,
        f"{_SCHEDULED}:SchedulerOutput",
        *("num_scheduled_tokens", "finished_req_ids", "scheduled_new_reqs"),
    ),
    *_all(
        Use.V1,
        f"{_SCHEDULED}:NewRequestData",
        *("req_id", "prompt_token_ids", "sampling_params", "lora_request", "num_computed_tokens"),
    ),
    Surface(Use.V1, "vllm.v1.outputs:ModelRunnerOutput.sampled_token_ids"),
    Surface(Use.V1, "vllm.lora.request:LoRARequest.lora_name"),
)

_STREAMS = (
    Surface(
        Use.STREAM, "vllm.model_executor.layers.layernorm:RMSNorm.forward_native", leading=("x", "residual")
    ),
    Surface(Use.STREAM, "vllm.model_executor.models.llama:LlamaDecoderLayer.input_layernorm"),
    Surface(Use.STREAM, "vllm.model_executor.models.llama:LlamaModel.norm"),
)

_HEADS = (
    *_all(Use.ATTENTION, _ATTENTION, "impl", "kv_cache", "layer_name"),
    Surface(
        Use.ATTENTION, f"{_CPU}:CPUAttentionBackendImpl.forward", leading=_CALLED_FORWARD, named=("output",)
    ),
    *_all(
        Use.ATTENTION,
        f"{_CPU}:CPUAttentionBackendImpl",
        *("num_heads", "head_size", "num_kv_heads", "scale", "sliding_window", "sinks", "alibi_slopes"),
        *("logits_soft_cap", "kv_cache_dtype", "attn_type"),
    ),
    Surface(Use.ATTENTION, f"{_CPU}:CPUAttentionMetadata.block_table"),
    # It is what gives layers their `isa`, by which we know how keys are packed.
    Surface(Use.ATTENTION, f"{_CPU}:CPUAttentionMetadataBuilder._set_isa_to_layers"),
)

_SAMPLING = _all(
    Use.SAMPLER,
    _PARAMS,
    *("temperature", "top_k", "top_p", "min_p", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "logit_bias", "bad_words", "min_tokens", "allowed_token_ids"),
    *("structured_outputs", "seed", "max_tokens"),
)

_CHANGES = (
    Surface(Use.WEIGHTS, f"{_RUNNER}.reload_weights", leading=("weights_iterator",)),
    Surface(Use.WEIGHTS, "vllm.v1.worker.gpu_worker:Worker.sleep", leading=("level",)),
    Surface(Use.WEIGHTS, "vllm.v1.worker.gpu_worker:Worker.wake_up", leading=("tags",)),
    *_all(Use.WEIGHTS, "vllm.v1.worker.gpu_worker:Worker", "update_weights"),
)

_REPREFILL = (
    Surface(
        Use.AGAIN,
        f"{_ASYNC}.get_num_unfinished_requests",
        elsewhere=("vllm.v1.engine.output_processor:OutputProcessor.get_num_unfinished_requests",),
    ),
    *_all(Use.AGAIN, _ASYNC, "output_processor", "vllm_config"),
    Surface(Use.AGAIN, f"{_ASYNC}.collective_rpc", leading=("method",)),
    Surface(Use.AGAIN, "vllm:SamplingParams"),
    Surface(Use.AGAIN, "vllm.sampling_params:RequestOutputKind.FINAL_ONLY"),
    *_all(Use.AGAIN, _PARAMS, "skip_reading_prefix_cache", "output_kind", "detokenize"),
    Surface(Use.AGAIN, f"{_CONFIG}.scheduler:SchedulerConfig.policy"),
)

_DIAGNOSIS = (
    Surface(Use.DOCTOR, f"{_CONFIG}:set_current_vllm_config", leading=("vllm_config",)),
    Surface(
        Use.DOCTOR,
        "vllm.distributed:init_distributed_environment",
        leading=("world_size", "rank", "distributed_init_method", "local_rank", "backend"),
    ),
    Surface(Use.DOCTOR, "vllm.distributed:initialize_model_parallel"),
    Surface(Use.DOCTOR, "vllm.model_executor.model_loader.utils:initialize_model", leading=("vllm_config",)),
    Surface(Use.DOCTOR, "vllm.utils.torch_utils:set_default_torch_dtype", leading=("dtype",)),
)

_IMPLEMENTATIONS = (
    "vllm.v1.attention.backends.flash_attn:FlashAttentionImpl",
    "vllm.v1.attention.backends.triton_attn:TritonAttentionImpl",
    "vllm.v1.attention.backends.flashinfer:FlashInferImpl",
)

_GPU_HEADS = (
    *(
        Surface(Use.GPU, f"{name}.forward", leading=_CALLED_FORWARD, named=("output",))
        for name in _IMPLEMENTATIONS
    ),
    *(
        surface
        for name in _IMPLEMENTATIONS
        for surface in _all(
            Use.GPU,
            name,
            *("num_heads", "head_size", "num_kv_heads", "scale", "sliding_window", "logits_soft_cap"),
            *("alibi_slopes", "kv_cache_dtype", "sinks"),
        )
    ),
    # Under these names layers keep what cached numbers are scaled by; the function gives them, in every release.
    Surface(
        Use.GPU,
        f"{_ATTENTION.partition(':')[0]}:set_default_quant_scales",
        leading=("layer", "register_buffer"),
    ),
    *_all(Use.GPU, _ATTENTION, "query_quant", "head_size_v", "attn_type"),
    # Where its keys are, of each group of layers, of both runners.
    *_all(Use.GPU, f"{_CACHE}:KVCacheConfig", "kv_cache_groups"),
    *_all(Use.GPU, f"{_CACHE}:KVCacheGroupSpec", "layer_names"),
    *_all(Use.GPU, _RUNNER, "kv_cache_config"),
    *_all(Use.GPU, _BATCH, "block_table", "num_reqs"),
    *_all(Use.GPU, "vllm.v1.worker.block_table:MultiGroupBlockTable", "__getitem__"),
    Surface(Use.GPU, "vllm.v1.worker.block_table:BlockTable.get_device_tensor", leading=("num_reqs",)),
    *_all(Use.GPU, "vllm.v1.worker.block_table:BlockTable", "block_size"),
    *_all(Use.GPU, _V2, "kv_cache_config", "block_tables"),
    *_all(Use.GPU, "vllm.v1.worker.gpu.block_table:BlockTables", "input_block_tables", "block_sizes"),
)

_LATE = (
    *_all(
        Use.LATE,
        "vllm.v1.worker.gpu_model_runner:AsyncGPUModelRunnerOutput",
        *("async_copy_ready_event", "sampled_token_ids_cpu", "_invalid_req_indices"),
    ),
    Surface(Use.LATE, f"{_BATCH}.prev_sampled_token_ids"),
    Surface(Use.LATE, f"{_SCHEDULED}:SchedulerOutput.scheduled_cached_reqs"),
    Surface(Use.LATE, f"{_SCHEDULED}:CachedRequestData.resumed_req_ids"),
)

_SECOND_RUNNER = (
    Surface(Use.V2, f"{_V2}.finish_requests", leading=("scheduler_output",)),
    Surface(Use.V2, f"{_V2}.add_requests", leading=("scheduler_output",)),
    *_all(Use.V2, _V2, "prepare_inputs", "sample", "sample_tokens", "load_model"),
    *_all(Use.V2, _V2, "model", "req_states", "max_model_len", "sampler"),
    *_all(
        Use.V2,
        _V2_BATCH,
        *("req_ids", "num_reqs", "query_start_loc_np", "cu_num_logits_np", "num_computed_tokens_np"),
        "prefill_len_np",
    ),
    Surface(Use.V2, "vllm.v1.worker.gpu.states:RequestState.req_id_to_index"),
    Surface(Use.V2, f"{_SCHEDULED}:SchedulerOutput.preempted_req_ids"),
    Surface(Use.V2, f"{_SCHEDULED}:NewRequestData.prefill_token_ids"),
    *_all(
        Use.V2,
        "vllm.v1.worker.gpu.async_utils:AsyncOutput",
        *("copy_event", "sampled_token_ids", "num_sampled_tokens_np"),
    ),
)

_DISPATCHER = "vllm.v1.cudagraph_dispatcher:CudagraphDispatcher"
_MANAGER = "vllm.v1.worker.gpu.cudagraph_utils"

_GRAPHS = (
    Surface(Use.GRAPHS, f"{_RUNNER}.execute_model", leading=("scheduler_output",)),
    Surface(Use.GRAPHS, f"{_RUNNER}.cudagraph_dispatcher"),
    Surface(Use.GRAPHS, f"{_DISPATCHER}.dispatch", named=("num_tokens", "valid_modes", "invalid_modes")),
    Surface(Use.GRAPHS, f"{_DISPATCHER}.cudagraph_mode"),
    Surface(
        Use.GRAPHS,
        f"{_V2}.execute_model",
        leading=("scheduler_output", "intermediate_tensors", "dummy_run"),
    ),
    Surface(Use.GRAPHS, f"{_V2}.cudagraph_manager"),
    Surface(
        Use.GRAPHS,
        f"{_MANAGER}:CudaGraphManager.dispatch",
        named=("num_reqs", "num_tokens", "uniform_token_count"),
    ),
    Surface(Use.GRAPHS, f"{_MANAGER}:CudaGraphManager.cudagraph_mode"),
    *_all(
        Use.GRAPHS,
        f"{_MANAGER}:BatchExecutionDescriptor",
        *("cg_mode", "num_tokens", "num_reqs", "uniform_token_count"),
    ),
    *_all(
        Use.GRAPHS,
        f"{_CONFIG}.compilation:CUDAGraphMode",
        *("NONE", "PIECEWISE", "FULL", "has_full_cudagraphs", "has_piecewise_cudagraphs"),
    ),
    *_all(Use.GRAPHS, f"{_SCHEDULED}:SchedulerOutput", "total_num_scheduled_tokens"),
)

SURFACES = (
    *_PLUGIN,
    *_API,
    *_FIRST_RUNNER,
    *_STREAMS,
    *_HEADS,
    *_SAMPLING,
    *_CHANGES,
    *_REPREFILL,
    *_DIAGNOSIS,
    *_GPU_HEADS,
    *_LATE,
    *_SECOND_RUNNER,
    *_GRAPHS,
)

_PAIR = ("key_cache", "value_cache")
CACHES = {
    "CPU": (f"{_CPU}", _PAIR),
    "FlashAttention": ("vllm.v1.attention.backends.flash_attn", _PAIR),
    "Triton": ("vllm.v1.attention.backends.triton_attn", _PAIR),
    "FlashInfer": ("vllm.v1.attention.backends.flashinfer", ("kv_cache_permute",)),
    "FlashInfer's order": ("vllm.v1.attention.backends.flashinfer", ("stride_order",)),
}
"""Where each backend says how its cache holds keys and values: by a module, and the names that it gives them."""
