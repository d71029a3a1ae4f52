"""protoc plugin for gRPC stubs: grpcio-tools ships the generator, but no plugin that buf can call."""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def main() -> None:
    """Read a CodeGeneratorRequest, write the response with one `_pb2_grpc.py` per file that has services."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    files = {f.name: f for f in request.proto_file}
    wanted = [n for n in request.file_to_generate if files[n].service]
    if not wanted:
        sys.stdout.buffer.write(response.SerializeToString())
        return
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.binpb")
        image.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        code = protoc.main(["protoc", f"--descriptor_set_in={image}", f"--grpc_python_out={folder}", *wanted])
        if code:
            sys.exit(code)
        for name in wanted:
            out = name.removesuffix(".proto") + "_pb2_grpc.py"
            response.file.add(name=out, content=Path(folder, out).read_text(encoding="utf-8"))
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
