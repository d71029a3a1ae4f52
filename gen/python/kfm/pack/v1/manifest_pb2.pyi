from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Manifest(_message.Message):
    __slots__ = ("name", "version", "description", "planner", "models", "prompts", "uses", "tools", "knowledge", "max_repairs", "license", "author", "homepage")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PLANNER_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    KNOWLEDGE_FIELD_NUMBER: _ClassVar[int]
    MAX_REPAIRS_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    HOMEPAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    description: str
    planner: str
    models: _containers.RepeatedScalarFieldContainer[str]
    prompts: PackPrompts
    uses: _containers.RepeatedScalarFieldContainer[str]
    tools: _containers.RepeatedCompositeFieldContainer[PackTool]
    knowledge: PackKnowledge
    max_repairs: int
    license: str
    author: str
    homepage: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., description: _Optional[str] = ..., planner: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., prompts: _Optional[_Union[PackPrompts, _Mapping]] = ..., uses: _Optional[_Iterable[str]] = ..., tools: _Optional[_Iterable[_Union[PackTool, _Mapping]]] = ..., knowledge: _Optional[_Union[PackKnowledge, _Mapping]] = ..., max_repairs: _Optional[int] = ..., license: _Optional[str] = ..., author: _Optional[str] = ..., homepage: _Optional[str] = ...) -> None: ...

class PackPrompts(_message.Message):
    __slots__ = ("system", "variables")
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    system: str
    variables: _containers.ScalarMap[str, str]
    def __init__(self, system: _Optional[str] = ..., variables: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PackTool(_message.Message):
    __slots__ = ("name", "description", "source", "function", "input_schema", "timeout_seconds", "memory_mib")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    INPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    source: str
    function: str
    input_schema: _struct_pb2.Struct
    timeout_seconds: float
    memory_mib: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., source: _Optional[str] = ..., function: _Optional[str] = ..., input_schema: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., timeout_seconds: _Optional[float] = ..., memory_mib: _Optional[int] = ...) -> None: ...

class PackKnowledge(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, files: _Optional[_Iterable[str]] = ...) -> None: ...

class PackTests(_message.Message):
    __slots__ = ("cases",)
    CASES_FIELD_NUMBER: _ClassVar[int]
    cases: _containers.RepeatedCompositeFieldContainer[PackCase]
    def __init__(self, cases: _Optional[_Iterable[_Union[PackCase, _Mapping]]] = ...) -> None: ...

class PackCase(_message.Message):
    __slots__ = ("name", "call", "message", "model_says", "expect")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_SAYS_FIELD_NUMBER: _ClassVar[int]
    EXPECT_FIELD_NUMBER: _ClassVar[int]
    name: str
    call: PackCall
    message: str
    model_says: _containers.RepeatedScalarFieldContainer[str]
    expect: PackExpectation
    def __init__(self, name: _Optional[str] = ..., call: _Optional[_Union[PackCall, _Mapping]] = ..., message: _Optional[str] = ..., model_says: _Optional[_Iterable[str]] = ..., expect: _Optional[_Union[PackExpectation, _Mapping]] = ...) -> None: ...

class PackCall(_message.Message):
    __slots__ = ("tool", "arguments")
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    tool: str
    arguments: _struct_pb2.Struct
    def __init__(self, tool: _Optional[str] = ..., arguments: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class PackExpectation(_message.Message):
    __slots__ = ("output", "contains", "error", "calls")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CONTAINS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    output: _struct_pb2.Value
    contains: _containers.RepeatedScalarFieldContainer[str]
    error: str
    calls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, output: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., contains: _Optional[_Iterable[str]] = ..., error: _Optional[str] = ..., calls: _Optional[_Iterable[str]] = ...) -> None: ...
