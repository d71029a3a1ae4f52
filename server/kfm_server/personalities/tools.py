"""The tools that packs bring: Python functions in the sandbox, and the reader of skills."""

from pathlib import Path
from typing import Any

from kfm.pack.v1 import manifest_pb2 as pb
from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import parse_json
from kfm_server.models import OwnTool, Personality
from kfm_server.personalities.pack import Pack, function_of, grant_of
from kfm_server.personalities.skills import READ_SKILL
from kfm_server.personalities.store import PackStore
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.ports.sandbox import Function, Sandbox, SandboxError
from kfm_server.ports.tools import Tool, ToolCall, ToolError, ToolSpec

MOST_PRINTED = 4_096
"""Of what a tool prints, watchers are told so many characters."""


class SandboxedTools:
    """As ports.tools.PackTools."""

    def __init__(self, store: PackStore, sandbox: Sandbox) -> None:
        self._store = store
        self._sandbox = sandbox

    def tool(self, personality: Personality, name: str) -> Tool | None:
        """As PackTools."""
        own = next((tool for tool in personality.own_tools if tool.name == name), None)
        return None if own is None else _OwnTool(own, personality.pack, self._store, self._sandbox)


class _OwnTool:
    def __init__(self, own: OwnTool, digest: str, store: PackStore, sandbox: Sandbox) -> None:
        self._own = own
        self._digest = digest
        self._store = store
        self._sandbox = sandbox

    @property
    def spec(self) -> ToolSpec:
        """As the turn keeps it."""
        own = self._own
        return ToolSpec(own.name, own.description, parse_json(own.schema_json), types.EFFECT_CONTRACT_PURE)

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Run it in the sandbox. Raises ToolError."""
        try:
            pack = await self._store.find(self._digest)
        except (JournalUnavailable, OSError) as error:
            raise ToolError(f"The pack cannot be read now: {error}", retryable=True) from None
        if pack is None:
            raise ToolError(f"The pack {self._digest} is not known here.")
        if self._own.name == READ_SKILL:
            return read_skill(pack, arguments)
        tool = next(tool for tool in pack.manifest.tools if tool.name == self._own.name)
        value, printed = await run_tool(self._sandbox, self._store.directory(self._digest), tool, arguments)
        if printed:
            call.progress(printed[:MOST_PRINTED])
        return value


async def run_tool(
    sandbox: Sandbox, directory: Path, tool: pb.PackTool, arguments: dict[str, Any]
) -> tuple[Any, str]:
    """What the tool's function returns and prints, with its pack in `directory`. Raises ToolError."""
    try:
        outcome = await sandbox.run(
            Function(directory / tool.source, function_of(tool)), arguments, grant_of(tool, directory)
        )
    except SandboxError as error:
        raise ToolError(str(error)) from None
    return outcome.value, outcome.printed


def read_skill(pack: Pack, arguments: dict[str, Any]) -> Any:
    """The text of a skill, or of another file of its folder. Raises ToolError."""
    skill = next((skill for skill in pack.skills if skill.name == arguments["name"]), None)
    if skill is None:
        raise ToolError(f"There is no skill {arguments['name']!r}.")
    file = arguments.get("file", "")
    if not file:
        return {"name": skill.name, "text": skill.text, "files": sorted(skill.files)}
    if file not in skill.files:
        raise ToolError(f"The skill {skill.name!r} has no text {file!r}; it has {sorted(skill.files)}.")
    return {"name": skill.name, "file": file, "text": skill.files[file]}
