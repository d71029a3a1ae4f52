"""Server reflection, v1 and v1alpha, over the whole contract with its comments.

The library's servicer knows v1alpha only and serves descriptors from which the comments are gone; without them, and
without every event type, grpcurl can neither explain a field nor print an event.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb

from kfm_server.doors.grpc.interceptor import AnyHandler

_V1ALPHA = "grpc.reflection.v1alpha"
_V1 = "grpc.reflection.v1"
_METHOD = "ServerReflectionInfo"


class Image:
    """Descriptors by file, symbol and extension."""

    def __init__(self, image: bytes) -> None:
        """`image` is a serialised FileDescriptorSet with imports and source information."""
        self.raw: dict[str, bytes] = {}
        self.symbols: dict[str, str] = {}
        self.extensions: dict[str, dict[int, str]] = {}
        self.services: list[str] = []
        self._imports: dict[str, list[str]] = {}
        for file in descriptor_pb2.FileDescriptorSet.FromString(image).file:
            self._add(file)
        self._add(_v1_file())
        # The last two let clients read the details of an error.
        standard = (pb, health_pb2, error_details_pb2, status_pb2)
        for name in (module.DESCRIPTOR.name for module in standard):
            self._add_from_pool(name)
        for name in sorted({i for imports in self._imports.values() for i in imports} - self.raw.keys()):
            self._add_from_pool(name)

    def closure(self, name: str) -> list[str]:
        """The file and all that it imports, itself first."""
        found, todo = [name], list(self._imports[name])
        while todo:
            file = todo.pop(0)
            if file not in found and file in self.raw:
                found.append(file)
                todo += self._imports[file]
        return found

    def _add_from_pool(self, name: str) -> None:
        try:
            file = descriptor_pool.Default().FindFileByName(name)
        except KeyError:
            return
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        self._add(proto)

    def _add(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        if file.name in self.raw:
            return
        self.raw[file.name] = file.SerializeToString()
        self._imports[file.name] = list(file.dependency)
        prefix = f"{file.package}." if file.package else ""
        self._messages(file.name, prefix, file.message_type)
        self._enums(file.name, prefix, file.enum_type)
        self._fields(file.name, prefix, file.extension)
        for service in file.service:
            self.services.append(prefix + service.name)
            self.symbols[prefix + service.name] = file.name
            for method in service.method:
                self.symbols[f"{prefix}{service.name}.{method.name}"] = file.name

    def _messages(self, file: str, prefix: str, messages: Iterable[descriptor_pb2.DescriptorProto]) -> None:
        for message in messages:
            name = prefix + message.name
            self.symbols[name] = file
            self._fields(file, f"{name}.", message.field)
            self._fields(file, f"{name}.", message.extension)
            for oneof in message.oneof_decl:
                self.symbols[f"{name}.{oneof.name}"] = file
            self._enums(file, f"{name}.", message.enum_type)
            self._messages(file, f"{name}.", message.nested_type)

    def _enums(self, file: str, prefix: str, enums: Iterable[descriptor_pb2.EnumDescriptorProto]) -> None:
        for enum in enums:
            self.symbols[prefix + enum.name] = file
            for value in enum.value:
                # A value's name stands beside its enum, and clients ask for it below its enum as well.
                self.symbols.setdefault(prefix + value.name, file)
                self.symbols[f"{prefix}{enum.name}.{value.name}"] = file

    def _fields(self, file: str, prefix: str, fields: Iterable[descriptor_pb2.FieldDescriptorProto]) -> None:
        for field in fields:
            self.symbols[prefix + field.name] = file
            if field.extendee:
                self.extensions.setdefault(field.extendee.lstrip("."), {})[field.number] = file


class Reflection:
    """The one servicer behind both versions; their messages are the same on the wire."""

    def __init__(self, image: bytes) -> None:
        """`image` as for Image."""
        self._image = Image(image)

    def handlers(self) -> dict[str, AnyHandler]:
        """Handlers by path."""
        handler = grpc.stream_stream_rpc_method_handler(
            self.info,
            pb.ServerReflectionRequest.FromString,
            pb.ServerReflectionResponse.SerializeToString,
        )
        return {f"/{package}.ServerReflection/{_METHOD}": handler for package in (_V1, _V1ALPHA)}

    async def info(
        self, requests: AsyncIterator[pb.ServerReflectionRequest], context: Any
    ) -> AsyncIterator[pb.ServerReflectionResponse]:
        """Answer each question; a file is sent once in a stream unless it is asked for by name."""
        del context
        sent: set[str] = set()
        async for request in requests:
            answer = self._answer(request, sent)
            answer.valid_host = request.host
            answer.original_request.CopyFrom(request)
            yield answer

    def _answer(self, request: pb.ServerReflectionRequest, sent: set[str]) -> pb.ServerReflectionResponse:
        image = self._image
        match request.WhichOneof("message_request"):
            case "list_services":
                services = [pb.ServiceResponse(name=name) for name in image.services]
                return pb.ServerReflectionResponse(
                    list_services_response=pb.ListServiceResponse(service=services)
                )
            case "file_by_filename":
                name = request.file_by_filename
                return self._file(name if name in image.raw else None, name, sent)
            case "file_containing_symbol":
                symbol = request.file_containing_symbol.lstrip(".")
                return self._file(image.symbols.get(symbol), symbol, sent)
            case "file_containing_extension":
                asked = request.file_containing_extension
                numbers = image.extensions.get(asked.containing_type, {})
                what = f"{asked.containing_type}[{asked.extension_number}]"
                return self._file(numbers.get(asked.extension_number), what, sent)
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                if name not in image.symbols:
                    return _error(grpc.StatusCode.NOT_FOUND, f"no type {name[:200]}")
                numbers = pb.ExtensionNumberResponse(
                    base_type_name=name, extension_number=sorted(image.extensions.get(name, {}))
                )
                return pb.ServerReflectionResponse(all_extension_numbers_response=numbers)
            case _:
                return _error(grpc.StatusCode.INVALID_ARGUMENT, "the request asks for nothing")

    def _file(self, name: str | None, asked: str, sent: set[str]) -> pb.ServerReflectionResponse:
        if name is None:
            return _error(grpc.StatusCode.NOT_FOUND, f"no {asked[:200]}")
        first, *others = self._image.closure(name)
        files = [first, *(f for f in others if f not in sent)]
        sent.update(files)
        response = pb.FileDescriptorResponse(file_descriptor_proto=[self._image.raw[f] for f in files])
        return pb.ServerReflectionResponse(file_descriptor_response=response)


def _error(code: grpc.StatusCode, message: str) -> pb.ServerReflectionResponse:
    error = pb.ErrorResponse(error_code=code.value[0], error_message=message)
    return pb.ServerReflectionResponse(error_response=error)


def _v1_file() -> descriptor_pb2.FileDescriptorProto:
    """The v1 file, made from v1alpha: only the package differs."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", _V1
    for message in file.message_type:
        for field in message.field:
            field.type_name = field.type_name.replace(_V1ALPHA, _V1)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(_V1ALPHA, _V1)
        method.output_type = method.output_type.replace(_V1ALPHA, _V1)
    file.ClearField("options")
    return file
