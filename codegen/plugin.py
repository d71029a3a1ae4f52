"""What all our protoc plugins share: read the request, hand over a Schema, write the files."""

import sys
from collections.abc import Callable
from pathlib import Path

from google.protobuf.compiler import plugin_pb2

from codegen.schema import Schema, SchemaError

Files = dict[str, str]


def release() -> str:
    """The schema release of the tree; `proto/RELEASE` is the one place where it is written."""
    return Path("proto/RELEASE").read_text(encoding="utf-8").strip()


def run(generate: Callable[[Schema], Files]) -> None:
    """Run a plugin: standard input to standard output. A SchemaError fails the build with its message."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    try:
        for name, content in generate(Schema(request.proto_file)).items():
            response.file.add(name=name, content=content)
    except SchemaError as error:
        response.error = str(error)
    sys.stdout.buffer.write(response.SerializeToString())
