from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SegmentKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEGMENT_KIND_UNSPECIFIED: _ClassVar[SegmentKind]
    SEGMENT_KIND_PROMPT: _ClassVar[SegmentKind]
    SEGMENT_KIND_DECODED: _ClassVar[SegmentKind]
    SEGMENT_KIND_CANARY: _ClassVar[SegmentKind]
    SEGMENT_KIND_REPREFILL: _ClassVar[SegmentKind]

class Statistic(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATISTIC_UNSPECIFIED: _ClassVar[Statistic]
    STATISTIC_LAST: _ClassVar[Statistic]
    STATISTIC_MEAN: _ClassVar[Statistic]
    STATISTIC_MAX: _ClassVar[Statistic]
    STATISTIC_SUM: _ClassVar[Statistic]
    STATISTIC_SAMPLE: _ClassVar[Statistic]
    STATISTIC_FIRST: _ClassVar[Statistic]
SEGMENT_KIND_UNSPECIFIED: SegmentKind
SEGMENT_KIND_PROMPT: SegmentKind
SEGMENT_KIND_DECODED: SegmentKind
SEGMENT_KIND_CANARY: SegmentKind
SEGMENT_KIND_REPREFILL: SegmentKind
STATISTIC_UNSPECIFIED: Statistic
STATISTIC_LAST: Statistic
STATISTIC_MEAN: Statistic
STATISTIC_MAX: Statistic
STATISTIC_SUM: Statistic
STATISTIC_SAMPLE: Statistic
STATISTIC_FIRST: Statistic

class Resource(_message.Message):
    __slots__ = ("service_name", "replica", "model_name", "model_fingerprint", "engine_name", "engine_version", "dtype", "tensor_parallel_rank", "pipeline_parallel_rank", "data_parallel_rank", "layer_count", "head_count", "sdk_version", "attributes", "tensor_parallel_size", "pipeline_parallel_size")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_NAME_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_PARALLEL_RANK_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_PARALLEL_RANK_FIELD_NUMBER: _ClassVar[int]
    DATA_PARALLEL_RANK_FIELD_NUMBER: _ClassVar[int]
    LAYER_COUNT_FIELD_NUMBER: _ClassVar[int]
    HEAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    SDK_VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    TENSOR_PARALLEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_PARALLEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    service_name: str
    replica: str
    model_name: str
    model_fingerprint: str
    engine_name: str
    engine_version: str
    dtype: str
    tensor_parallel_rank: int
    pipeline_parallel_rank: int
    data_parallel_rank: int
    layer_count: int
    head_count: int
    sdk_version: str
    attributes: _containers.ScalarMap[str, str]
    tensor_parallel_size: int
    pipeline_parallel_size: int
    def __init__(self, service_name: _Optional[str] = ..., replica: _Optional[str] = ..., model_name: _Optional[str] = ..., model_fingerprint: _Optional[str] = ..., engine_name: _Optional[str] = ..., engine_version: _Optional[str] = ..., dtype: _Optional[str] = ..., tensor_parallel_rank: _Optional[int] = ..., pipeline_parallel_rank: _Optional[int] = ..., data_parallel_rank: _Optional[int] = ..., layer_count: _Optional[int] = ..., head_count: _Optional[int] = ..., sdk_version: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ..., tensor_parallel_size: _Optional[int] = ..., pipeline_parallel_size: _Optional[int] = ...) -> None: ...

class Columns(_message.Message):
    __slots__ = ("signals", "signal_index", "layer", "head", "component", "statistic")
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    COMPONENT_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    signals: _containers.RepeatedScalarFieldContainer[str]
    signal_index: _containers.RepeatedScalarFieldContainer[int]
    layer: _containers.RepeatedScalarFieldContainer[int]
    head: _containers.RepeatedScalarFieldContainer[int]
    component: _containers.RepeatedScalarFieldContainer[int]
    statistic: _containers.RepeatedScalarFieldContainer[Statistic]
    def __init__(self, signals: _Optional[_Iterable[str]] = ..., signal_index: _Optional[_Iterable[int]] = ..., layer: _Optional[_Iterable[int]] = ..., head: _Optional[_Iterable[int]] = ..., component: _Optional[_Iterable[int]] = ..., statistic: _Optional[_Iterable[_Union[Statistic, str]]] = ...) -> None: ...

class SegmentTable(_message.Message):
    __slots__ = ("kind", "columns", "segment_count", "request_id", "trace_id", "span_id", "cluster_key", "adapters", "adapter_index", "segment_index", "token_start", "token_count", "measured_count", "prompt_tokens", "cached_tokens", "time_unix_nano", "sampling_probability", "values")
    KIND_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_KEY_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    TOKEN_START_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEASURED_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_NANO_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    kind: SegmentKind
    columns: Columns
    segment_count: int
    request_id: _containers.RepeatedScalarFieldContainer[str]
    trace_id: bytes
    span_id: bytes
    cluster_key: bytes
    adapters: _containers.RepeatedScalarFieldContainer[str]
    adapter_index: _containers.RepeatedScalarFieldContainer[int]
    segment_index: _containers.RepeatedScalarFieldContainer[int]
    token_start: _containers.RepeatedScalarFieldContainer[int]
    token_count: _containers.RepeatedScalarFieldContainer[int]
    measured_count: _containers.RepeatedScalarFieldContainer[int]
    prompt_tokens: _containers.RepeatedScalarFieldContainer[int]
    cached_tokens: _containers.RepeatedScalarFieldContainer[int]
    time_unix_nano: _containers.RepeatedScalarFieldContainer[int]
    sampling_probability: _containers.RepeatedScalarFieldContainer[float]
    values: bytes
    def __init__(self, kind: _Optional[_Union[SegmentKind, str]] = ..., columns: _Optional[_Union[Columns, _Mapping]] = ..., segment_count: _Optional[int] = ..., request_id: _Optional[_Iterable[str]] = ..., trace_id: _Optional[bytes] = ..., span_id: _Optional[bytes] = ..., cluster_key: _Optional[bytes] = ..., adapters: _Optional[_Iterable[str]] = ..., adapter_index: _Optional[_Iterable[int]] = ..., segment_index: _Optional[_Iterable[int]] = ..., token_start: _Optional[_Iterable[int]] = ..., token_count: _Optional[_Iterable[int]] = ..., measured_count: _Optional[_Iterable[int]] = ..., prompt_tokens: _Optional[_Iterable[int]] = ..., cached_tokens: _Optional[_Iterable[int]] = ..., time_unix_nano: _Optional[_Iterable[int]] = ..., sampling_probability: _Optional[_Iterable[float]] = ..., values: _Optional[bytes] = ...) -> None: ...

class DropCount(_message.Message):
    __slots__ = ("reason", "segments", "requests", "rows")
    REASON_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    segments: int
    requests: int
    rows: int
    def __init__(self, reason: _Optional[str] = ..., segments: _Optional[int] = ..., requests: _Optional[int] = ..., rows: _Optional[int] = ...) -> None: ...

class DisabledSignal(_message.Message):
    __slots__ = ("signal", "reason", "detail")
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    signal: str
    reason: str
    detail: str
    def __init__(self, signal: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class ProducerStatus(_message.Message):
    __slots__ = ("measured_steps", "measured_rows", "capture_seconds", "drops", "disabled", "probe_errors", "sampler_rows_skipped", "attention_rows_skipped", "sampling_probability", "sampler_tokens", "sampler_low", "sampler_high", "sampler_sum", "queue_age_seconds")
    MEASURED_STEPS_FIELD_NUMBER: _ClassVar[int]
    MEASURED_ROWS_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DROPS_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    PROBE_ERRORS_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_ROWS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_ROWS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_LOW_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_HIGH_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_SUM_FIELD_NUMBER: _ClassVar[int]
    QUEUE_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    measured_steps: int
    measured_rows: int
    capture_seconds: float
    drops: _containers.RepeatedCompositeFieldContainer[DropCount]
    disabled: _containers.RepeatedCompositeFieldContainer[DisabledSignal]
    probe_errors: int
    sampler_rows_skipped: int
    attention_rows_skipped: int
    sampling_probability: float
    sampler_tokens: int
    sampler_low: int
    sampler_high: int
    sampler_sum: float
    queue_age_seconds: float
    def __init__(self, measured_steps: _Optional[int] = ..., measured_rows: _Optional[int] = ..., capture_seconds: _Optional[float] = ..., drops: _Optional[_Iterable[_Union[DropCount, _Mapping]]] = ..., disabled: _Optional[_Iterable[_Union[DisabledSignal, _Mapping]]] = ..., probe_errors: _Optional[int] = ..., sampler_rows_skipped: _Optional[int] = ..., attention_rows_skipped: _Optional[int] = ..., sampling_probability: _Optional[float] = ..., sampler_tokens: _Optional[int] = ..., sampler_low: _Optional[int] = ..., sampler_high: _Optional[int] = ..., sampler_sum: _Optional[float] = ..., queue_age_seconds: _Optional[float] = ...) -> None: ...
