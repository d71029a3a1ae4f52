import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from kfm.options.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EffectContract(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EFFECT_CONTRACT_UNSPECIFIED: _ClassVar[EffectContract]
    EFFECT_CONTRACT_PURE: _ClassVar[EffectContract]
    EFFECT_CONTRACT_IDEMPOTENT: _ClassVar[EffectContract]
    EFFECT_CONTRACT_TRANSACTIONAL: _ClassVar[EffectContract]
    EFFECT_CONTRACT_AT_MOST_ONCE: _ClassVar[EffectContract]
    EFFECT_CONTRACT_COMPENSATABLE: _ClassVar[EffectContract]

class StepKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_KIND_UNSPECIFIED: _ClassVar[StepKind]
    STEP_KIND_MODEL: _ClassVar[StepKind]
    STEP_KIND_TOOL: _ClassVar[StepKind]
    STEP_KIND_MEMORY: _ClassVar[StepKind]
    STEP_KIND_HTTP: _ClassVar[StepKind]
    STEP_KIND_HUMAN: _ClassVar[StepKind]
    STEP_KIND_PLAN: _ClassVar[StepKind]
    STEP_KIND_OPERATOR: _ClassVar[StepKind]
EFFECT_CONTRACT_UNSPECIFIED: EffectContract
EFFECT_CONTRACT_PURE: EffectContract
EFFECT_CONTRACT_IDEMPOTENT: EffectContract
EFFECT_CONTRACT_TRANSACTIONAL: EffectContract
EFFECT_CONTRACT_AT_MOST_ONCE: EffectContract
EFFECT_CONTRACT_COMPENSATABLE: EffectContract
STEP_KIND_UNSPECIFIED: StepKind
STEP_KIND_MODEL: StepKind
STEP_KIND_TOOL: StepKind
STEP_KIND_MEMORY: StepKind
STEP_KIND_HTTP: StepKind
STEP_KIND_HUMAN: StepKind
STEP_KIND_PLAN: StepKind
STEP_KIND_OPERATOR: StepKind

class Part(_message.Message):
    __slots__ = ("text", "data_json")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DATA_JSON_FIELD_NUMBER: _ClassVar[int]
    text: str
    data_json: str
    def __init__(self, text: _Optional[str] = ..., data_json: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("input_tokens", "output_tokens", "cost_nanos", "model_calls", "tool_calls")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COST_NANOS_FIELD_NUMBER: _ClassVar[int]
    MODEL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    output_tokens: int
    cost_nanos: int
    model_calls: int
    tool_calls: int
    def __init__(self, input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., cost_nanos: _Optional[int] = ..., model_calls: _Optional[int] = ..., tool_calls: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_steps", "max_attempts", "max_in_flight", "step_timeout", "max_model_calls", "max_tokens", "max_cost_nanos")
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    STEP_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_COST_NANOS_FIELD_NUMBER: _ClassVar[int]
    max_steps: int
    max_attempts: int
    max_in_flight: int
    step_timeout: _duration_pb2.Duration
    max_model_calls: int
    max_tokens: int
    max_cost_nanos: int
    def __init__(self, max_steps: _Optional[int] = ..., max_attempts: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., step_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_model_calls: _Optional[int] = ..., max_tokens: _Optional[int] = ..., max_cost_nanos: _Optional[int] = ...) -> None: ...

class PlanStep(_message.Message):
    __slots__ = ("key", "kind", "tool", "instructions", "arguments_json", "depends_on", "effect", "timeout", "compensation_tool", "pool", "model")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    COMPENSATION_TOOL_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    key: str
    kind: StepKind
    tool: str
    instructions: str
    arguments_json: str
    depends_on: _containers.RepeatedScalarFieldContainer[str]
    effect: EffectContract
    timeout: _duration_pb2.Duration
    compensation_tool: str
    pool: str
    model: str
    def __init__(self, key: _Optional[str] = ..., kind: _Optional[_Union[StepKind, str]] = ..., tool: _Optional[str] = ..., instructions: _Optional[str] = ..., arguments_json: _Optional[str] = ..., depends_on: _Optional[_Iterable[str]] = ..., effect: _Optional[_Union[EffectContract, str]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., compensation_tool: _Optional[str] = ..., pool: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("reason", "message", "retryable", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    retryable: bool
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., retryable: _Optional[bool] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...
