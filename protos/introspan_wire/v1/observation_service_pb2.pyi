from introspan_wire.v1 import observation_pb2 as _observation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExportObservationsRequest(_message.Message):
    __slots__ = ("resource", "producer_id", "sequence", "tables", "status")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    resource: _observation_pb2.Resource
    producer_id: bytes
    sequence: int
    tables: _containers.RepeatedCompositeFieldContainer[_observation_pb2.SegmentTable]
    status: _observation_pb2.ProducerStatus
    def __init__(self, resource: _Optional[_Union[_observation_pb2.Resource, _Mapping]] = ..., producer_id: _Optional[bytes] = ..., sequence: _Optional[int] = ..., tables: _Optional[_Iterable[_Union[_observation_pb2.SegmentTable, _Mapping]]] = ..., status: _Optional[_Union[_observation_pb2.ProducerStatus, _Mapping]] = ...) -> None: ...

class ExportObservationsResponse(_message.Message):
    __slots__ = ("partial_success", "directives")
    PARTIAL_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVES_FIELD_NUMBER: _ClassVar[int]
    partial_success: ExportObservationsPartialSuccess
    directives: Directives
    def __init__(self, partial_success: _Optional[_Union[ExportObservationsPartialSuccess, _Mapping]] = ..., directives: _Optional[_Union[Directives, _Mapping]] = ...) -> None: ...

class ExportObservationsPartialSuccess(_message.Message):
    __slots__ = ("rejected_segments", "error_message")
    REJECTED_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    rejected_segments: int
    error_message: str
    def __init__(self, rejected_segments: _Optional[int] = ..., error_message: _Optional[str] = ...) -> None: ...

class Directives(_message.Message):
    __slots__ = ("max_sampling_probability", "capture_off")
    MAX_SAMPLING_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_OFF_FIELD_NUMBER: _ClassVar[int]
    max_sampling_probability: float
    capture_off: bool
    def __init__(self, max_sampling_probability: _Optional[float] = ..., capture_off: bool = ...) -> None: ...
