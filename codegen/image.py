"""The contract as descriptor images: one for reflection with comments, one for the SDK without options.

buf builds them; a protoc plugin cannot, since its output must be text.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from codegen.schema import FILES, OURS

HIDDEN = ("kfm/options/", "buf/validate/", "google/api/", "google/protobuf/descriptor.proto")


def build(root: Path) -> FileDescriptorSet:
    """Build `root`/proto with its imports and source info; CalledProcessError if a proto is wrong."""
    buf = Path(".venv/bin/buf").absolute()
    command = [str(buf), "build", "proto", "--as-file-descriptor-set", "-o", "-#format=binpb"]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True)
    return FileDescriptorSet.FromString(done.stdout)


def bare(files: Iterable[FileDescriptorProto]) -> FileDescriptorSet:
    """The same files without source info: what a release keeps."""
    image = FileDescriptorSet(file=files)
    for file in image.file:
        file.ClearField("source_code_info")
    return image


def for_reflection(image: FileDescriptorSet) -> bytes:
    """All files; of the source info only our own comments."""
    out = FileDescriptorSet(file=image.file)
    for file in out.file:
        kept = [loc for loc in file.source_code_info.location if loc.leading_comments]
        file.ClearField("source_code_info")
        if file.name.startswith(OURS):
            file.source_code_info.location.extend(kept)
    return out.SerializeToString(deterministic=True)


def for_sdk(image: FileDescriptorSet) -> bytes:
    """Only what is needed to read and write: no options, no comments, no rules."""
    out = FileDescriptorSet()
    for file in image.file:
        if file.name.startswith(HIDDEN) or file.package == FILES:
            continue
        own = out.file.add()
        own.CopyFrom(file)
        own.ClearField("source_code_info")
        own.ClearField("options")
        kept = [d for d in file.dependency if not d.startswith(HIDDEN)]
        own.ClearField("dependency")
        own.dependency.extend(kept)
        for message in own.message_type:
            _strip(message)
        for enum in own.enum_type:
            for value in enum.value:
                value.ClearField("options")
        for service in own.service:
            for method in service.method:
                method.ClearField("options")
    return out.SerializeToString(deterministic=True)


def _strip(message: DescriptorProto) -> None:
    entry = message.options.map_entry
    message.ClearField("options")
    if entry:
        message.options.map_entry = True
    for field in message.field:
        field.ClearField("options")
    for oneof in message.oneof_decl:
        oneof.ClearField("options")
    for nested in message.nested_type:
        _strip(nested)
    for enum in message.enum_type:
        for value in enum.value:
            value.ClearField("options")


def main(out: Path) -> None:
    """Write both images below `out`."""
    image = build(Path("."))
    for path, content in (
        ("gen/python/kfm/catalogue/image.binpb", for_reflection(image)),
        ("sdk/python/xenocomm/_gen/image.binpb", for_sdk(image)),
    ):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
