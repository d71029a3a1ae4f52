import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from kfm.event.v1 import envelope_pb2 as _envelope_pb2
from kfm.event.v1 import turn_events_pb2 as _turn_events_pb2
from kfm.options.v1 import options_pb2 as _options_pb2
from kfm.turn.v1 import turn_pb2 as _turn_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitTurnRequest(_message.Message):
    __slots__ = ("turn", "idempotency_key")
    TURN_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.TurnSpec
    idempotency_key: str
    def __init__(self, turn: _Optional[_Union[_turn_pb2.TurnSpec, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SubmitTurnResponse(_message.Message):
    __slots__ = ("turn_id", "session_id", "state")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    session_id: str
    state: _turn_pb2.TurnState
    def __init__(self, turn_id: _Optional[str] = ..., session_id: _Optional[str] = ..., state: _Optional[_Union[_turn_pb2.TurnState, str]] = ...) -> None: ...

class RunTurnRequest(_message.Message):
    __slots__ = ("turn", "idempotency_key")
    TURN_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.TurnSpec
    idempotency_key: str
    def __init__(self, turn: _Optional[_Union[_turn_pb2.TurnSpec, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class RunTurnResponse(_message.Message):
    __slots__ = ("updates",)
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    updates: _containers.RepeatedCompositeFieldContainer[_turn_pb2.TurnUpdate]
    def __init__(self, updates: _Optional[_Iterable[_Union[_turn_pb2.TurnUpdate, _Mapping]]] = ...) -> None: ...

class WatchTurnRequest(_message.Message):
    __slots__ = ("turn_id", "after_sequence")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    after_sequence: int
    def __init__(self, turn_id: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchTurnResponse(_message.Message):
    __slots__ = ("updates",)
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    updates: _containers.RepeatedCompositeFieldContainer[_turn_pb2.TurnUpdate]
    def __init__(self, updates: _Optional[_Iterable[_Union[_turn_pb2.TurnUpdate, _Mapping]]] = ...) -> None: ...

class WaitTurnRequest(_message.Message):
    __slots__ = ("turn_id", "timeout")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    timeout: _duration_pb2.Duration
    def __init__(self, turn_id: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WaitTurnResponse(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.Turn
    def __init__(self, turn: _Optional[_Union[_turn_pb2.Turn, _Mapping]] = ...) -> None: ...

class GetTurnRequest(_message.Message):
    __slots__ = ("turn_id",)
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    def __init__(self, turn_id: _Optional[str] = ...) -> None: ...

class GetTurnResponse(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.Turn
    def __init__(self, turn: _Optional[_Union[_turn_pb2.Turn, _Mapping]] = ...) -> None: ...

class ListTurnsRequest(_message.Message):
    __slots__ = ("session_id", "state", "page_size", "page_token")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    state: _turn_pb2.TurnState
    page_size: int
    page_token: str
    def __init__(self, session_id: _Optional[str] = ..., state: _Optional[_Union[_turn_pb2.TurnState, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTurnsResponse(_message.Message):
    __slots__ = ("turns", "next_page_token")
    TURNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    turns: _containers.RepeatedCompositeFieldContainer[_turn_pb2.Turn]
    next_page_token: str
    def __init__(self, turns: _Optional[_Iterable[_Union[_turn_pb2.Turn, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListTurnEventsRequest(_message.Message):
    __slots__ = ("turn_id", "after_sequence", "page_size")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    after_sequence: int
    page_size: int
    def __init__(self, turn_id: _Optional[str] = ..., after_sequence: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class ListTurnEventsResponse(_message.Message):
    __slots__ = ("events", "more")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_envelope_pb2.Envelope]
    more: bool
    def __init__(self, events: _Optional[_Iterable[_Union[_envelope_pb2.Envelope, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class CancelTurnRequest(_message.Message):
    __slots__ = ("turn_id", "reason", "idempotency_key")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    reason: str
    idempotency_key: str
    def __init__(self, turn_id: _Optional[str] = ..., reason: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class CancelTurnResponse(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.Turn
    def __init__(self, turn: _Optional[_Union[_turn_pb2.Turn, _Mapping]] = ...) -> None: ...

class PauseTurnRequest(_message.Message):
    __slots__ = ("turn_id", "reason", "idempotency_key")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    reason: str
    idempotency_key: str
    def __init__(self, turn_id: _Optional[str] = ..., reason: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class PauseTurnResponse(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.Turn
    def __init__(self, turn: _Optional[_Union[_turn_pb2.Turn, _Mapping]] = ...) -> None: ...

class ResumeTurnRequest(_message.Message):
    __slots__ = ("turn_id", "reason", "idempotency_key")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    reason: str
    idempotency_key: str
    def __init__(self, turn_id: _Optional[str] = ..., reason: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class ResumeTurnResponse(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.Turn
    def __init__(self, turn: _Optional[_Union[_turn_pb2.Turn, _Mapping]] = ...) -> None: ...

class RetryTurnRequest(_message.Message):
    __slots__ = ("turn_id", "idempotency_key")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    idempotency_key: str
    def __init__(self, turn_id: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class RetryTurnResponse(_message.Message):
    __slots__ = ("turn_id", "session_id")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    session_id: str
    def __init__(self, turn_id: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class ForkTurnRequest(_message.Message):
    __slots__ = ("turn_id", "step_key", "idempotency_key")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    step_key: str
    idempotency_key: str
    def __init__(self, turn_id: _Optional[str] = ..., step_key: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class ForkTurnResponse(_message.Message):
    __slots__ = ("turn_id", "session_id")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    session_id: str
    def __init__(self, turn_id: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class ReadStepOutputRequest(_message.Message):
    __slots__ = ("turn_id", "step_key", "offset", "max_bytes")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    step_key: str
    offset: int
    max_bytes: int
    def __init__(self, turn_id: _Optional[str] = ..., step_key: _Optional[str] = ..., offset: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class ReadStepOutputResponse(_message.Message):
    __slots__ = ("data", "total_bytes", "digest")
    DATA_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    total_bytes: int
    digest: str
    def __init__(self, data: _Optional[bytes] = ..., total_bytes: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class AnswerStepRequest(_message.Message):
    __slots__ = ("turn_id", "step_key", "output_json", "idempotency_key")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    step_key: str
    output_json: str
    idempotency_key: str
    def __init__(self, turn_id: _Optional[str] = ..., step_key: _Optional[str] = ..., output_json: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class AnswerStepResponse(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.Turn
    def __init__(self, turn: _Optional[_Union[_turn_pb2.Turn, _Mapping]] = ...) -> None: ...

class SettleStepRequest(_message.Message):
    __slots__ = ("turn_id", "step_key", "settle_as", "output_json", "reason", "idempotency_key")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    SETTLE_AS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    step_key: str
    settle_as: _turn_events_pb2.SettleAs
    output_json: str
    reason: str
    idempotency_key: str
    def __init__(self, turn_id: _Optional[str] = ..., step_key: _Optional[str] = ..., settle_as: _Optional[_Union[_turn_events_pb2.SettleAs, str]] = ..., output_json: _Optional[str] = ..., reason: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SettleStepResponse(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.Turn
    def __init__(self, turn: _Optional[_Union[_turn_pb2.Turn, _Mapping]] = ...) -> None: ...

class ExplainTurnRequest(_message.Message):
    __slots__ = ("turn_id",)
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    def __init__(self, turn_id: _Optional[str] = ...) -> None: ...

class ExplainTurnResponse(_message.Message):
    __slots__ = ("state", "waits")
    STATE_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    state: _turn_pb2.TurnState
    waits: _containers.RepeatedCompositeFieldContainer[Wait]
    def __init__(self, state: _Optional[_Union[_turn_pb2.TurnState, str]] = ..., waits: _Optional[_Iterable[_Union[Wait, _Mapping]]] = ...) -> None: ...

class Wait(_message.Message):
    __slots__ = ("reason", "step_key", "blocking_turn_id", "since", "until", "then", "ended_by")
    REASON_FIELD_NUMBER: _ClassVar[int]
    STEP_KEY_FIELD_NUMBER: _ClassVar[int]
    BLOCKING_TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    THEN_FIELD_NUMBER: _ClassVar[int]
    ENDED_BY_FIELD_NUMBER: _ClassVar[int]
    reason: _turn_events_pb2.WaitReason
    step_key: str
    blocking_turn_id: str
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    then: str
    ended_by: _containers.RepeatedScalarFieldContainer[_turn_events_pb2.TurnVerb]
    def __init__(self, reason: _Optional[_Union[_turn_events_pb2.WaitReason, str]] = ..., step_key: _Optional[str] = ..., blocking_turn_id: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., then: _Optional[str] = ..., ended_by: _Optional[_Iterable[_Union[_turn_events_pb2.TurnVerb, str]]] = ...) -> None: ...
