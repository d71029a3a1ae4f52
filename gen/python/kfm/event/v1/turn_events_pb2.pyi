import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from kfm.options.v1 import options_pb2 as _options_pb2
from kfm.type.v1 import type_pb2 as _type_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BusyMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUSY_MODE_UNSPECIFIED: _ClassVar[BusyMode]
    BUSY_MODE_ENQUEUE: _ClassVar[BusyMode]
    BUSY_MODE_REJECT: _ClassVar[BusyMode]
    BUSY_MODE_INTERRUPT: _ClassVar[BusyMode]
    BUSY_MODE_ROLLBACK: _ClassVar[BusyMode]

class TurnVerb(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TURN_VERB_UNSPECIFIED: _ClassVar[TurnVerb]
    TURN_VERB_CANCEL: _ClassVar[TurnVerb]
    TURN_VERB_PAUSE: _ClassVar[TurnVerb]
    TURN_VERB_RESUME: _ClassVar[TurnVerb]
    TURN_VERB_ANSWER: _ClassVar[TurnVerb]
    TURN_VERB_SETTLE: _ClassVar[TurnVerb]
    TURN_VERB_RETRY: _ClassVar[TurnVerb]
    TURN_VERB_FORK: _ClassVar[TurnVerb]
    TURN_VERB_WAIT: _ClassVar[TurnVerb]

class SettleAs(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SETTLE_AS_UNSPECIFIED: _ClassVar[SettleAs]
    SETTLE_AS_SUCCEEDED: _ClassVar[SettleAs]
    SETTLE_AS_FAILED: _ClassVar[SettleAs]
    SETTLE_AS_RETRY: _ClassVar[SettleAs]

class TurnChange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TURN_CHANGE_UNSPECIFIED: _ClassVar[TurnChange]
    TURN_CHANGE_QUEUED: _ClassVar[TurnChange]
    TURN_CHANGE_STARTED: _ClassVar[TurnChange]
    TURN_CHANGE_WAITING: _ClassVar[TurnChange]
    TURN_CHANGE_TIMER_FIRED: _ClassVar[TurnChange]
    TURN_CHANGE_FINISHED: _ClassVar[TurnChange]

class WaitReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAIT_REASON_UNSPECIFIED: _ClassVar[WaitReason]
    WAIT_REASON_RETRY_BACKOFF: _ClassVar[WaitReason]
    WAIT_REASON_HUMAN: _ClassVar[WaitReason]
    WAIT_REASON_NEEDS_REVIEW: _ClassVar[WaitReason]
    WAIT_REASON_PAUSED: _ClassVar[WaitReason]
    WAIT_REASON_SETTLE_GRACE: _ClassVar[WaitReason]
    WAIT_REASON_QUEUED: _ClassVar[WaitReason]
    WAIT_REASON_STEPS: _ClassVar[WaitReason]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_SUCCEEDED: _ClassVar[Outcome]
    OUTCOME_FAILED: _ClassVar[Outcome]
    OUTCOME_CANCELLED: _ClassVar[Outcome]
    OUTCOME_TIMED_OUT: _ClassVar[Outcome]

class PlanChange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLAN_CHANGE_UNSPECIFIED: _ClassVar[PlanChange]
    PLAN_CHANGE_MADE: _ClassVar[PlanChange]
    PLAN_CHANGE_EXTENDED: _ClassVar[PlanChange]
    PLAN_CHANGE_REPAIRED: _ClassVar[PlanChange]
    PLAN_CHANGE_REFUSED: _ClassVar[PlanChange]

class StepStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_STATUS_UNSPECIFIED: _ClassVar[StepStatus]
    STEP_STATUS_SUCCEEDED: _ClassVar[StepStatus]
    STEP_STATUS_FAILED: _ClassVar[StepStatus]
    STEP_STATUS_CANCELLED: _ClassVar[StepStatus]
    STEP_STATUS_SKIPPED: _ClassVar[StepStatus]
    STEP_STATUS_UNKNOWN: _ClassVar[StepStatus]
BUSY_MODE_UNSPECIFIED: BusyMode
BUSY_MODE_ENQUEUE: BusyMode
BUSY_MODE_REJECT: BusyMode
BUSY_MODE_INTERRUPT: BusyMode
BUSY_MODE_ROLLBACK: BusyMode
TURN_VERB_UNSPECIFIED: TurnVerb
TURN_VERB_CANCEL: TurnVerb
TURN_VERB_PAUSE: TurnVerb
TURN_VERB_RESUME: TurnVerb
TURN_VERB_ANSWER: TurnVerb
TURN_VERB_SETTLE: TurnVerb
TURN_VERB_RETRY: TurnVerb
TURN_VERB_FORK: TurnVerb
TURN_VERB_WAIT: TurnVerb
SETTLE_AS_UNSPECIFIED: SettleAs
SETTLE_AS_SUCCEEDED: SettleAs
SETTLE_AS_FAILED: SettleAs
SETTLE_AS_RETRY: SettleAs
TURN_CHANGE_UNSPECIFIED: TurnChange
TURN_CHANGE_QUEUED: TurnChange
TURN_CHANGE_STARTED: TurnChange
TURN_CHANGE_WAITING: TurnChange
TURN_CHANGE_TIMER_FIRED: TurnChange
TURN_CHANGE_FINISHED: TurnChange
WAIT_REASON_UNSPECIFIED: WaitReason
WAIT_REASON_RETRY_BACKOFF: WaitReason
WAIT_REASON_HUMAN: WaitReason
WAIT_REASON_NEEDS_REVIEW: WaitReason
WAIT_REASON_PAUSED: WaitReason
WAIT_REASON_SETTLE_GRACE: WaitReason
WAIT_REASON_QUEUED: WaitReason
WAIT_REASON_STEPS: WaitReason
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_SUCCEEDED: Outcome
OUTCOME_FAILED: Outcome
OUTCOME_CANCELLED: Outcome
OUTCOME_TIMED_OUT: Outcome
PLAN_CHANGE_UNSPECIFIED: PlanChange
PLAN_CHANGE_MADE: PlanChange
PLAN_CHANGE_EXTENDED: PlanChange
PLAN_CHANGE_REPAIRED: PlanChange
PLAN_CHANGE_REFUSED: PlanChange
STEP_STATUS_UNSPECIFIED: StepStatus
STEP_STATUS_SUCCEEDED: StepStatus
STEP_STATUS_FAILED: StepStatus
STEP_STATUS_CANCELLED: StepStatus
STEP_STATUS_SKIPPED: StepStatus
STEP_STATUS_UNKNOWN: StepStatus

class TurnEvent(_message.Message):
    __slots__ = ("principal", "personality", "input", "on_busy", "timeout", "limits", "labels", "parent_turn_id", "fork_step_key", "root_turn_id", "policy_reference", "output_schema_json")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    PERSONALITY_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    ON_BUSY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PARENT_TURN_ID_FIELD_NUMBER: _ClassVar[int]
    FORK_STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    ROOT_TURN_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    principal: str
    personality: str
    input: _containers.RepeatedCompositeFieldContainer[_type_pb2.Part]
    on_busy: BusyMode
    timeout: _duration_pb2.Duration
    limits: _type_pb2.Limits
    labels: _containers.ScalarMap[str, str]
    parent_turn_id: str
    fork_step_key: str
    root_turn_id: str
    policy_reference: str
    output_schema_json: str
    def __init__(self, principal: _Optional[str] = ..., personality: _Optional[str] = ..., input: _Optional[_Iterable[_Union[_type_pb2.Part, _Mapping]]] = ..., on_busy: _Optional[_Union[BusyMode, str]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., limits: _Optional[_Union[_type_pb2.Limits, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., parent_turn_id: _Optional[str] = ..., fork_step_key: _Optional[str] = ..., root_turn_id: _Optional[str] = ..., policy_reference: _Optional[str] = ..., output_schema_json: _Optional[str] = ...) -> None: ...

class TurnControlEvent(_message.Message):
    __slots__ = ("principal", "verb", "reason", "step_key", "settle_as", "output_json")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    SETTLE_AS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    principal: str
    verb: TurnVerb
    reason: str
    step_key: str
    settle_as: SettleAs
    output_json: str
    def __init__(self, principal: _Optional[str] = ..., verb: _Optional[_Union[TurnVerb, str]] = ..., reason: _Optional[str] = ..., step_key: _Optional[str] = ..., settle_as: _Optional[_Union[SettleAs, str]] = ..., output_json: _Optional[str] = ...) -> None: ...

class TurnStateEvent(_message.Message):
    __slots__ = ("change", "personality_digest", "schema_release", "tools_digest", "wait_reason", "wake_at", "step_key", "ended_by", "outcome", "output", "usage", "error", "deadline", "dropped", "effects_done", "personality_json")
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    PERSONALITY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_RELEASE_FIELD_NUMBER: _ClassVar[int]
    TOOLS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WAIT_REASON_FIELD_NUMBER: _ClassVar[int]
    WAKE_AT_FIELD_NUMBER: _ClassVar[int]
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    ENDED_BY_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_DONE_FIELD_NUMBER: _ClassVar[int]
    PERSONALITY_JSON_FIELD_NUMBER: _ClassVar[int]
    change: TurnChange
    personality_digest: str
    schema_release: str
    tools_digest: str
    wait_reason: WaitReason
    wake_at: _timestamp_pb2.Timestamp
    step_key: str
    ended_by: TurnVerb
    outcome: Outcome
    output: _containers.RepeatedCompositeFieldContainer[_type_pb2.Part]
    usage: _type_pb2.Usage
    error: _type_pb2.Error
    deadline: _timestamp_pb2.Timestamp
    dropped: bool
    effects_done: _containers.RepeatedScalarFieldContainer[str]
    personality_json: str
    def __init__(self, change: _Optional[_Union[TurnChange, str]] = ..., personality_digest: _Optional[str] = ..., schema_release: _Optional[str] = ..., tools_digest: _Optional[str] = ..., wait_reason: _Optional[_Union[WaitReason, str]] = ..., wake_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., step_key: _Optional[str] = ..., ended_by: _Optional[_Union[TurnVerb, str]] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., output: _Optional[_Iterable[_Union[_type_pb2.Part, _Mapping]]] = ..., usage: _Optional[_Union[_type_pb2.Usage, _Mapping]] = ..., error: _Optional[_Union[_type_pb2.Error, _Mapping]] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., dropped: _Optional[bool] = ..., effects_done: _Optional[_Iterable[str]] = ..., personality_json: _Optional[str] = ...) -> None: ...

class PlanEvent(_message.Message):
    __slots__ = ("plan_id", "change", "planner", "model", "complexity", "steps", "cost_bound_nanos", "error")
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    PLANNER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COMPLEXITY_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    COST_BOUND_NANOS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    plan_id: str
    change: PlanChange
    planner: str
    model: str
    complexity: int
    steps: _containers.RepeatedCompositeFieldContainer[_type_pb2.PlanStep]
    cost_bound_nanos: int
    error: _type_pb2.Error
    def __init__(self, plan_id: _Optional[str] = ..., change: _Optional[_Union[PlanChange, str]] = ..., planner: _Optional[str] = ..., model: _Optional[str] = ..., complexity: _Optional[int] = ..., steps: _Optional[_Iterable[_Union[_type_pb2.PlanStep, _Mapping]]] = ..., cost_bound_nanos: _Optional[int] = ..., error: _Optional[_Union[_type_pb2.Error, _Mapping]] = ...) -> None: ...

class StepEvent(_message.Message):
    __slots__ = ("plan_id", "step_id", "step_key", "step_index", "step_type", "tool", "instructions", "parameters_json", "contract", "key", "start_by", "deadline", "pool", "rerun", "compensation", "model", "max_tokens", "max_cost_nanos", "principal")
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    STEP_TYPE_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_JSON_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    START_BY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    RERUN_FIELD_NUMBER: _ClassVar[int]
    COMPENSATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_COST_NANOS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    plan_id: str
    step_id: str
    step_key: str
    step_index: int
    step_type: _type_pb2.StepKind
    tool: str
    instructions: str
    parameters_json: str
    contract: _type_pb2.EffectContract
    key: str
    start_by: _timestamp_pb2.Timestamp
    deadline: _timestamp_pb2.Timestamp
    pool: str
    rerun: bool
    compensation: bool
    model: str
    max_tokens: int
    max_cost_nanos: int
    principal: str
    def __init__(self, plan_id: _Optional[str] = ..., step_id: _Optional[str] = ..., step_key: _Optional[str] = ..., step_index: _Optional[int] = ..., step_type: _Optional[_Union[_type_pb2.StepKind, str]] = ..., tool: _Optional[str] = ..., instructions: _Optional[str] = ..., parameters_json: _Optional[str] = ..., contract: _Optional[_Union[_type_pb2.EffectContract, str]] = ..., key: _Optional[str] = ..., start_by: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pool: _Optional[str] = ..., rerun: _Optional[bool] = ..., compensation: _Optional[bool] = ..., model: _Optional[str] = ..., max_tokens: _Optional[int] = ..., max_cost_nanos: _Optional[int] = ..., principal: _Optional[str] = ...) -> None: ...

class StepMetrics(_message.Message):
    __slots__ = ("run_time", "usage", "model", "provider_request_id", "prompt_digest")
    RUN_TIME_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    run_time: _duration_pb2.Duration
    usage: _type_pb2.Usage
    model: str
    provider_request_id: str
    prompt_digest: str
    def __init__(self, run_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., usage: _Optional[_Union[_type_pb2.Usage, _Mapping]] = ..., model: _Optional[str] = ..., provider_request_id: _Optional[str] = ..., prompt_digest: _Optional[str] = ...) -> None: ...

class StepResultEvent(_message.Message):
    __slots__ = ("step_key", "status", "output_json", "output_blob", "error", "metrics", "compensation", "synthesised", "worker", "output_bytes", "output_head")
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BLOB_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    COMPENSATION_FIELD_NUMBER: _ClassVar[int]
    SYNTHESISED_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_HEAD_FIELD_NUMBER: _ClassVar[int]
    step_key: str
    status: StepStatus
    output_json: str
    output_blob: str
    error: _type_pb2.Error
    metrics: StepMetrics
    compensation: bool
    synthesised: bool
    worker: str
    output_bytes: int
    output_head: str
    def __init__(self, step_key: _Optional[str] = ..., status: _Optional[_Union[StepStatus, str]] = ..., output_json: _Optional[str] = ..., output_blob: _Optional[str] = ..., error: _Optional[_Union[_type_pb2.Error, _Mapping]] = ..., metrics: _Optional[_Union[StepMetrics, _Mapping]] = ..., compensation: _Optional[bool] = ..., synthesised: _Optional[bool] = ..., worker: _Optional[str] = ..., output_bytes: _Optional[int] = ..., output_head: _Optional[str] = ...) -> None: ...
