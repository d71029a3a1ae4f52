from kfm.options.v1 import options_pb2 as _options_pb2
from kfm.type.v1 import type_pb2 as _type_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LifecyclePhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIFECYCLE_PHASE_UNSPECIFIED: _ClassVar[LifecyclePhase]
    LIFECYCLE_PHASE_STARTED: _ClassVar[LifecyclePhase]
    LIFECYCLE_PHASE_READY: _ClassVar[LifecyclePhase]
    LIFECYCLE_PHASE_DRAINING: _ClassVar[LifecyclePhase]
    LIFECYCLE_PHASE_STOPPED: _ClassVar[LifecyclePhase]
LIFECYCLE_PHASE_UNSPECIFIED: LifecyclePhase
LIFECYCLE_PHASE_STARTED: LifecyclePhase
LIFECYCLE_PHASE_READY: LifecyclePhase
LIFECYCLE_PHASE_DRAINING: LifecyclePhase
LIFECYCLE_PHASE_STOPPED: LifecyclePhase

class AuditEvent(_message.Message):
    __slots__ = ("principal", "action", "resource", "allowed", "reason", "source_event_id")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    principal: str
    action: str
    resource: str
    allowed: bool
    reason: str
    source_event_id: str
    def __init__(self, principal: _Optional[str] = ..., action: _Optional[str] = ..., resource: _Optional[str] = ..., allowed: _Optional[bool] = ..., reason: _Optional[str] = ..., source_event_id: _Optional[str] = ...) -> None: ...

class DeadLetterEvent(_message.Message):
    __slots__ = ("group", "source_topic", "source_partition", "source_offset", "original", "error", "deliveries")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_TOPIC_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PARTITION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    group: str
    source_topic: str
    source_partition: int
    source_offset: int
    original: bytes
    error: _type_pb2.Error
    deliveries: int
    def __init__(self, group: _Optional[str] = ..., source_topic: _Optional[str] = ..., source_partition: _Optional[int] = ..., source_offset: _Optional[int] = ..., original: _Optional[bytes] = ..., error: _Optional[_Union[_type_pb2.Error, _Mapping]] = ..., deliveries: _Optional[int] = ...) -> None: ...

class ConfigChangedEvent(_message.Message):
    __slots__ = ("digest", "changed")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    digest: str
    changed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, digest: _Optional[str] = ..., changed: _Optional[_Iterable[str]] = ...) -> None: ...

class LifecycleEvent(_message.Message):
    __slots__ = ("instance", "phase", "version")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    instance: str
    phase: LifecyclePhase
    version: str
    def __init__(self, instance: _Optional[str] = ..., phase: _Optional[_Union[LifecyclePhase, str]] = ..., version: _Optional[str] = ...) -> None: ...

class PackChangedEvent(_message.Message):
    __slots__ = ("pack", "version_before", "digest_before", "version", "digest", "signed_by", "problems")
    PACK_FIELD_NUMBER: _ClassVar[int]
    VERSION_BEFORE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_BEFORE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIGNED_BY_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    pack: str
    version_before: str
    digest_before: str
    version: str
    digest: str
    signed_by: str
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, pack: _Optional[str] = ..., version_before: _Optional[str] = ..., digest_before: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., signed_by: _Optional[str] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class MemoryChangedEvent(_message.Message):
    __slots__ = ("principal", "action", "resource", "counts")
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    principal: str
    action: str
    resource: str
    counts: _containers.ScalarMap[str, int]
    def __init__(self, principal: _Optional[str] = ..., action: _Optional[str] = ..., resource: _Optional[str] = ..., counts: _Optional[_Mapping[str, int]] = ...) -> None: ...
