import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from kfm.event.v1 import envelope_pb2 as _envelope_pb2
from kfm.event.v1 import turn_events_pb2 as _turn_events_pb2
from kfm.type.v1 import type_pb2 as _type_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TurnState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TURN_STATE_UNSPECIFIED: _ClassVar[TurnState]
    TURN_STATE_QUEUED: _ClassVar[TurnState]
    TURN_STATE_RUNNING: _ClassVar[TurnState]
    TURN_STATE_WAITING: _ClassVar[TurnState]
    TURN_STATE_FINISHED: _ClassVar[TurnState]

class StepState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_STATE_UNSPECIFIED: _ClassVar[StepState]
    STEP_STATE_PENDING: _ClassVar[StepState]
    STEP_STATE_RUNNING: _ClassVar[StepState]
    STEP_STATE_BACKING_OFF: _ClassVar[StepState]
    STEP_STATE_WAITING: _ClassVar[StepState]
    STEP_STATE_NEEDS_REVIEW: _ClassVar[StepState]
    STEP_STATE_SUCCEEDED: _ClassVar[StepState]
    STEP_STATE_FAILED: _ClassVar[StepState]
    STEP_STATE_CANCELLED: _ClassVar[StepState]
    STEP_STATE_SKIPPED: _ClassVar[StepState]
TURN_STATE_UNSPECIFIED: TurnState
TURN_STATE_QUEUED: TurnState
TURN_STATE_RUNNING: TurnState
TURN_STATE_WAITING: TurnState
TURN_STATE_FINISHED: TurnState
STEP_STATE_UNSPECIFIED: StepState
STEP_STATE_PENDING: StepState
STEP_STATE_RUNNING: StepState
STEP_STATE_BACKING_OFF: StepState
STEP_STATE_WAITING: StepState
STEP_STATE_NEEDS_REVIEW: StepState
STEP_STATE_SUCCEEDED: StepState
STEP_STATE_FAILED: StepState
STEP_STATE_CANCELLED: StepState
STEP_STATE_SKIPPED: StepState

class TurnSpec(_message.Message):
    __slots__ = ("session_id", "personality", "input", "on_busy", "timeout", "limits", "labels", "output_schema_json")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PERSONALITY_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    ON_BUSY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    personality: str
    input: _containers.RepeatedCompositeFieldContainer[_type_pb2.Part]
    on_busy: _turn_events_pb2.BusyMode
    timeout: _duration_pb2.Duration
    limits: _type_pb2.Limits
    labels: _containers.ScalarMap[str, str]
    output_schema_json: str
    def __init__(self, session_id: _Optional[str] = ..., personality: _Optional[str] = ..., input: _Optional[_Iterable[_Union[_type_pb2.Part, _Mapping]]] = ..., on_busy: _Optional[_Union[_turn_events_pb2.BusyMode, str]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., limits: _Optional[_Union[_type_pb2.Limits, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., output_schema_json: _Optional[str] = ...) -> None: ...

class StepAttempt(_message.Message):
    __slots__ = ("attempt", "dispatched_at", "ended_at", "status", "error", "rerun", "compensation", "usage", "model", "provider_request_id")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DISPATCHED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RERUN_FIELD_NUMBER: _ClassVar[int]
    COMPENSATION_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    dispatched_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    status: _turn_events_pb2.StepStatus
    error: _type_pb2.Error
    rerun: bool
    compensation: bool
    usage: _type_pb2.Usage
    model: str
    provider_request_id: str
    def __init__(self, attempt: _Optional[int] = ..., dispatched_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., status: _Optional[_Union[_turn_events_pb2.StepStatus, str]] = ..., error: _Optional[_Union[_type_pb2.Error, _Mapping]] = ..., rerun: _Optional[bool] = ..., compensation: _Optional[bool] = ..., usage: _Optional[_Union[_type_pb2.Usage, _Mapping]] = ..., model: _Optional[str] = ..., provider_request_id: _Optional[str] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("definition", "state", "attempts", "output_json", "output_digest", "output_bytes")
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    definition: _type_pb2.PlanStep
    state: StepState
    attempts: _containers.RepeatedCompositeFieldContainer[StepAttempt]
    output_json: str
    output_digest: str
    output_bytes: int
    def __init__(self, definition: _Optional[_Union[_type_pb2.PlanStep, _Mapping]] = ..., state: _Optional[_Union[StepState, str]] = ..., attempts: _Optional[_Iterable[_Union[StepAttempt, _Mapping]]] = ..., output_json: _Optional[str] = ..., output_digest: _Optional[str] = ..., output_bytes: _Optional[int] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("turn_id", "session_id", "state", "outcome", "spec", "planner", "steps", "output", "error", "usage", "wait_reason", "submitted_at", "finished_at", "deadline", "last_sequence", "parent_turn_id", "effects_done")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PLANNER_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    WAIT_REASON_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PARENT_TURN_ID_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_DONE_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    session_id: str
    state: TurnState
    outcome: _turn_events_pb2.Outcome
    spec: TurnSpec
    planner: str
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    output: _containers.RepeatedCompositeFieldContainer[_type_pb2.Part]
    error: _type_pb2.Error
    usage: _type_pb2.Usage
    wait_reason: _turn_events_pb2.WaitReason
    submitted_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    deadline: _timestamp_pb2.Timestamp
    last_sequence: int
    parent_turn_id: str
    effects_done: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, turn_id: _Optional[str] = ..., session_id: _Optional[str] = ..., state: _Optional[_Union[TurnState, str]] = ..., outcome: _Optional[_Union[_turn_events_pb2.Outcome, str]] = ..., spec: _Optional[_Union[TurnSpec, _Mapping]] = ..., planner: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ..., output: _Optional[_Iterable[_Union[_type_pb2.Part, _Mapping]]] = ..., error: _Optional[_Union[_type_pb2.Error, _Mapping]] = ..., usage: _Optional[_Union[_type_pb2.Usage, _Mapping]] = ..., wait_reason: _Optional[_Union[_turn_events_pb2.WaitReason, str]] = ..., submitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_sequence: _Optional[int] = ..., parent_turn_id: _Optional[str] = ..., effects_done: _Optional[_Iterable[str]] = ...) -> None: ...

class StepDelta(_message.Message):
    __slots__ = ("step_key", "attempt", "index", "text", "reasoning", "tool_arguments", "progress")
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    TOOL_ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    step_key: str
    attempt: int
    index: int
    text: str
    reasoning: str
    tool_arguments: str
    progress: str
    def __init__(self, step_key: _Optional[str] = ..., attempt: _Optional[int] = ..., index: _Optional[int] = ..., text: _Optional[str] = ..., reasoning: _Optional[str] = ..., tool_arguments: _Optional[str] = ..., progress: _Optional[str] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("step_key", "attempt")
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    step_key: str
    attempt: int
    def __init__(self, step_key: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Reconnect(_message.Message):
    __slots__ = ("reason", "after_sequence")
    REASON_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    after_sequence: int
    def __init__(self, reason: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class TurnUpdate(_message.Message):
    __slots__ = ("event", "delta", "gap", "reconnect", "epoch")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    event: _envelope_pb2.Envelope
    delta: StepDelta
    gap: Gap
    reconnect: Reconnect
    epoch: int
    def __init__(self, event: _Optional[_Union[_envelope_pb2.Envelope, _Mapping]] = ..., delta: _Optional[_Union[StepDelta, _Mapping]] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ..., reconnect: _Optional[_Union[Reconnect, _Mapping]] = ..., epoch: _Optional[int] = ...) -> None: ...
