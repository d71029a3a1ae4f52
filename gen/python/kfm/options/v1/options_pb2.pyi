from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Topic(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOPIC_UNSPECIFIED: _ClassVar[Topic]
    TOPIC_TURNS_REQUESTS: _ClassVar[Topic]
    TOPIC_TURNS_EVENTS: _ClassVar[Topic]
    TOPIC_PLANS: _ClassVar[Topic]
    TOPIC_STEPS_REQUESTS: _ClassVar[Topic]
    TOPIC_STEPS_RESULTS: _ClassVar[Topic]
    TOPIC_AUDIT: _ClassVar[Topic]
    TOPIC_DEAD_LETTERS: _ClassVar[Topic]
    TOPIC_SYSTEM: _ClassVar[Topic]

class RateClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RATE_CLASS_UNSPECIFIED: _ClassVar[RateClass]
    RATE_CLASS_READ: _ClassVar[RateClass]
    RATE_CLASS_WRITE: _ClassVar[RateClass]
    RATE_CLASS_STREAM: _ClassVar[RateClass]
    RATE_CLASS_ADMIN: _ClassVar[RateClass]
TOPIC_UNSPECIFIED: Topic
TOPIC_TURNS_REQUESTS: Topic
TOPIC_TURNS_EVENTS: Topic
TOPIC_PLANS: Topic
TOPIC_STEPS_REQUESTS: Topic
TOPIC_STEPS_RESULTS: Topic
TOPIC_AUDIT: Topic
TOPIC_DEAD_LETTERS: Topic
TOPIC_SYSTEM: Topic
RATE_CLASS_UNSPECIFIED: RateClass
RATE_CLASS_READ: RateClass
RATE_CLASS_WRITE: RateClass
RATE_CLASS_STREAM: RateClass
RATE_CLASS_ADMIN: RateClass
TOPIC_FIELD_NUMBER: _ClassVar[int]
topic: _descriptor.FieldDescriptor
ERROR_FIELD_NUMBER: _ClassVar[int]
error: _descriptor.FieldDescriptor
EFFECT_FIELD_NUMBER: _ClassVar[int]
effect: _descriptor.FieldDescriptor
EVENT_FIELD_NUMBER: _ClassVar[int]
event: _descriptor.FieldDescriptor
METHOD_FIELD_NUMBER: _ClassVar[int]
method: _descriptor.FieldDescriptor

class EventOptions(_message.Message):
    __slots__ = ("topic", "spec_version", "may_ignore")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    SPEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAY_IGNORE_FIELD_NUMBER: _ClassVar[int]
    topic: Topic
    spec_version: str
    may_ignore: bool
    def __init__(self, topic: _Optional[_Union[Topic, str]] = ..., spec_version: _Optional[str] = ..., may_ignore: _Optional[bool] = ...) -> None: ...

class McpTool(_message.Message):
    __slots__ = ("name", "title", "group")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    name: str
    title: str
    group: str
    def __init__(self, name: _Optional[str] = ..., title: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

class MethodOptions(_message.Message):
    __slots__ = ("scope", "rate_class", "long_running", "mcp", "not_in_mcp")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    RATE_CLASS_FIELD_NUMBER: _ClassVar[int]
    LONG_RUNNING_FIELD_NUMBER: _ClassVar[int]
    MCP_FIELD_NUMBER: _ClassVar[int]
    NOT_IN_MCP_FIELD_NUMBER: _ClassVar[int]
    scope: str
    rate_class: RateClass
    long_running: bool
    mcp: McpTool
    not_in_mcp: str
    def __init__(self, scope: _Optional[str] = ..., rate_class: _Optional[_Union[RateClass, str]] = ..., long_running: _Optional[bool] = ..., mcp: _Optional[_Union[McpTool, _Mapping]] = ..., not_in_mcp: _Optional[str] = ...) -> None: ...

class ErrorOptions(_message.Message):
    __slots__ = ("grpc_code", "http_status", "exit_code", "retryable", "summary")
    GRPC_CODE_FIELD_NUMBER: _ClassVar[int]
    HTTP_STATUS_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    grpc_code: int
    http_status: int
    exit_code: int
    retryable: bool
    summary: str
    def __init__(self, grpc_code: _Optional[int] = ..., http_status: _Optional[int] = ..., exit_code: _Optional[int] = ..., retryable: _Optional[bool] = ..., summary: _Optional[str] = ...) -> None: ...

class EffectOptions(_message.Message):
    __slots__ = ("rerun", "dispatch_first")
    RERUN_FIELD_NUMBER: _ClassVar[int]
    DISPATCH_FIRST_FIELD_NUMBER: _ClassVar[int]
    rerun: bool
    dispatch_first: bool
    def __init__(self, rerun: _Optional[bool] = ..., dispatch_first: _Optional[bool] = ...) -> None: ...
