"""A contract tree: the protos, their release, and the snapshots of those before. A copy of one can be broken freely."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from codegen.samples import samples
from codegen.schema import Schema

Check = Callable[["Tree"], list[str]]
SNAPSHOTS = "tests/contract/snapshots"
PARTS = ("proto", "third_party/proto", SNAPSHOTS)
ROOT = Path(__file__).resolve().parents[2]


def version(release: str) -> tuple[int, int, int]:
    """A release as numbers; ValueError if it is not `1.2.3`."""
    major, minor, patch = (int(n) for n in release.split("."))
    return major, minor, patch


class Version:
    """One version of the contract with its golden messages."""

    def __init__(self, name: str, image: bytes) -> None:
        """`name` is a release, or `HEAD`; `image` its descriptor image."""
        self.name = name
        self.image = image

    @cached_property
    def schema(self) -> Schema:
        """The contract itself."""
        return Schema.from_image(self.image)

    def goldens(self) -> Iterator[tuple[str, str, bytes, Any]]:
        """Every golden as (file name, message's full name, bytes, parsed JSON)."""
        for name, message in samples(self.schema):
            yield name, message.DESCRIPTOR.full_name, encode(message), to_json(self.schema, message)

    @cached_property
    def tools(self) -> list[dict[str, Any]]:
        """The MCP tools."""
        from codegen.protoc_gen_mcp_tools import tools

        return tools(self.schema)


class Snapshot(Version):
    """A release as it was kept."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds image, goldens and manifest."""
        super().__init__(folder.name, (folder / "image.binpb").read_bytes())
        self.folder = folder

    def goldens(self) -> Iterator[tuple[str, str, bytes, Any]]:
        """Every golden that was kept."""
        for path in sorted((self.folder / "goldens").glob("*.binpb")):
            yield (
                path.stem,
                self._message(path.stem),
                path.read_bytes(),
                json.loads(path.with_suffix(".json").read_text(encoding="utf-8")),
            )

    def _message(self, name: str) -> str:
        try:
            return self.schema.pool.FindMessageTypeByName(name).full_name
        except KeyError:
            return name.rpartition(".")[0]

    @cached_property
    def tools(self) -> list[dict[str, Any]]:
        """The MCP tools as they were released."""
        return json.loads((self.folder / "mcp_tools.json").read_text(encoding="utf-8"))


class Tree:
    """The contract below a folder; what is read once is kept, so break a copy before you check it."""

    def __init__(self, root: Path = ROOT) -> None:
        """`root` holds proto/, third_party/proto and tests/contract/snapshots."""
        self.root = root

    def copy(self, to: Path) -> "Tree":
        """A copy below an empty folder, to be broken."""
        for part in PARTS:
            shutil.copytree(self.root / part, to / part)
        shutil.copy(self.root / "buf.yaml", to)
        return Tree(to)

    def buf(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run buf in the tree; the caller looks at the exit code."""
        command = [str(ROOT / ".venv/bin/buf"), *arguments]
        return subprocess.run(command, cwd=self.root, check=False, capture_output=True)

    @property
    def release(self) -> str:
        """The schema release of the tree, released or not yet."""
        return (self.root / "proto/RELEASE").read_text(encoding="utf-8").strip()

    @cached_property
    def head(self) -> Version:
        """The protos as they are; ValueError with buf's words if they do not build."""
        done = self.buf("build", "proto", "--exclude-source-info", "-o", "-#format=binpb")
        if done.returncode:
            raise ValueError(done.stderr.decode())
        return Version("HEAD", done.stdout)

    @cached_property
    def snapshots(self) -> list[Snapshot]:
        """The releases, oldest first."""
        folders = [p for p in (self.root / SNAPSHOTS).glob("*") if (p / "image.binpb").exists()]
        return [Snapshot(p) for p in sorted(folders, key=lambda p: version(p.name))]

    def pairs(self) -> Iterator[tuple[Version, Version]]:
        """Every (older, newer), HEAD the newest."""
        line: list[Version] = [*self.snapshots, self.head]
        for i, old in enumerate(line):
            for new in line[i + 1 :]:
                yield old, new


def encode(message: Message) -> bytes:
    """Canonical bytes."""
    return message.SerializeToString(deterministic=True)


def to_json(schema: Schema, message: Message) -> Any:
    """ProtoJSON as parsed JSON, payloads resolved in the version's own pool."""
    return json_format.MessageToDict(message, descriptor_pool=schema.pool)
