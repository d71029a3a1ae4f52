"""A pack: its files, checked whole, and the personality that they make."""

import ast
import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from google.protobuf.json_format import MessageToDict
from kfm.pack.v1 import manifest_pb2 as pb

from kfm_server.canonical import canonical_json
from kfm_server.models import EVERY_TOOL, OwnTool, Personality, PlannerName
from kfm_server.personalities.documents import Document, read_message, text_of
from kfm_server.personalities.files import Files, digest_of, read_directory
from kfm_server.personalities.problems import PackInvalid, Problem
from kfm_server.personalities.prompts import names, render
from kfm_server.personalities.skills import READ_SKILL, Skill, read_skills
from kfm_server.ports.sandbox import Grant, MiB
from kfm_server.tool_catalogue import compiled

MANIFEST = "manifest.yaml"
_SEARCH = "knowledge_search"
_HEADING = f"Skills, which {READ_SKILL} reads:"
DEFAULT_SECONDS, DEFAULT_MIB = 10.0, 256
MOST_SOURCE = 256 * 1024
"""Bytes of a tool's file: reading it takes some thousand times its size."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack that is whole: its files, what they say, and the personality that they make. digest: of the files."""

    manifest: pb.Manifest
    files: Files
    digest: str
    personality: Personality
    skills: Sequence[Skill]
    tests: Mapping[str, pb.PackTests]
    """By file."""

    @property
    def name(self) -> str:
        """As turns give it."""
        return self.manifest.name

    def knowledge(self) -> Iterator[tuple[str, bytes]]:
        """The files that its manifest names as knowledge, by path."""
        for path, content in self.files.items():
            if any(_is_named(path, pattern) for pattern in self.manifest.knowledge.files):
                yield path, content


def load(directory: Path) -> Pack:
    """The pack in a directory. Raises PackInvalid with all that is wrong."""
    return check(read_directory(directory))


def check(files: Files) -> Pack:
    """The pack that files make. Raises PackInvalid with all that is wrong."""
    if MANIFEST not in files:
        raise PackInvalid([Problem(MANIFEST, 0, "is missing")])
    document = Document(MANIFEST, text_of(MANIFEST, files[MANIFEST]))
    manifest = read_message(pb.Manifest, document)
    problems = [*_tool_problems(manifest, document, files), *_knowledge_problems(manifest, document, files)]
    skills: Sequence[Skill] = ()
    tests: dict[str, pb.PackTests] = {}
    instructions = ""
    try:
        skills = read_skills(files)
    except PackInvalid as error:
        problems += error.problems
    try:
        instructions = _instructions(manifest, document, files, skills)
    except PackInvalid as error:
        problems += error.problems
    for path in files:
        if re.fullmatch(r"tests/.*\.ya?ml", path):
            try:
                cases = Document(path, text_of(path, files[path]))
                tests[path] = read_message(pb.PackTests, cases)
                problems += _case_problems(tests[path], cases, manifest)
            except PackInvalid as error:
                problems += error.problems
    if problems:
        raise PackInvalid(problems)
    digest = digest_of(files)
    personality = _personality(manifest, document, digest, instructions, skills)
    return Pack(manifest, files, digest, personality, skills, tests)


def grant_of(tool: pb.PackTool, directory: Path) -> Grant:
    """What a call of the tool may use, with the pack's files in `directory`."""
    seconds = tool.timeout_seconds or DEFAULT_SECONDS
    return Grant(
        read_only=(directory,),
        cpu_seconds=max(1, round(seconds)),
        wall_seconds=seconds,
        memory_bytes=(tool.memory_mib or DEFAULT_MIB) * MiB,
    )


def function_of(tool: pb.PackTool) -> str:
    """The name of its function."""
    return tool.function or tool.name


def _personality(
    manifest: pb.Manifest, document: Document, digest: str, instructions: str, skills: Sequence[Skill]
) -> Personality:
    own = [
        OwnTool(tool.name, tool.description, canonical_json(_schema(document, index)))
        for index, tool in enumerate(manifest.tools)
    ]
    if skills:
        own.append(
            OwnTool(
                READ_SKILL,
                "Read a skill: how to do a kind of task. `file` names another text of its folder.",
                canonical_json(
                    {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string", "enum": [skill.name for skill in skills]},
                            "file": {"type": "string"},
                        },
                        "required": ["name"],
                        "additionalProperties": False,
                    }
                ),
            )
        )
    return Personality(
        name=manifest.name,
        description=manifest.description,
        planner=cast("PlannerName", manifest.planner or "hybrid"),
        models=tuple(manifest.models),
        instructions=instructions,
        tools=None if [*manifest.uses] == [EVERY_TOOL] else tuple(manifest.uses),
        max_repairs=manifest.max_repairs if manifest.HasField("max_repairs") else 2,
        version=manifest.version,
        pack=digest,
        own_tools=tuple(own),
    )


def _instructions(manifest: pb.Manifest, document: Document, files: Files, skills: Sequence[Skill]) -> str:
    path = manifest.prompts.system
    listed = "\n".join(f"- {skill.name}: {skill.description}" for skill in skills)
    if not path:
        return f"{_HEADING}\n{listed}" if skills else ""
    if path not in files:
        raise PackInvalid([document.problem(("prompts", "system"), f"there is no file {path}")])
    given = {
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "skills": listed,
    }
    template = text_of(path, files[path])
    told = render(path, template, {**manifest.prompts.variables, **given})
    if skills and not names(template, "skills"):
        told = f"{told}\n\n{_HEADING}\n{listed}"
    return told


def _tool_problems(manifest: pb.Manifest, document: Document, files: Files) -> Iterator[Problem]:
    named: set[str] = {*manifest.uses, READ_SKILL}
    for index, tool in enumerate(manifest.tools):
        at = ("tools", index)
        if tool.name in named:
            yield document.problem((*at, "name"), f"{tool.name!r} is the name of another of its tools")
        named.add(tool.name)
        try:
            schema = _schema(document, index)
            compiled(schema)
            if schema.get("type") != "object":
                yield document.problem((*at, "input_schema"), "must have the type object")
        except ValueError as error:
            yield document.problem(
                (*at, "input_schema"), f"is no JSON Schema: {str(error).splitlines()[0][:300]}"
            )
        if tool.source not in files:
            yield document.problem((*at, "source"), f"there is no file {tool.source}")
            continue
        yield from _source_problems(tool, document, at, files)


def _source_problems(
    tool: pb.PackTool, document: Document, at: tuple[str, int], files: Files
) -> Iterator[Problem]:
    if len(files[tool.source]) > MOST_SOURCE:
        yield Problem(tool.source, 0, f"has more than {MOST_SOURCE} bytes, the most that a tool may have")
        return
    try:
        tree = ast.parse(text_of(tool.source, files[tool.source]))
    except PackInvalid as error:
        yield from error.problems
        return
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = error.msg if isinstance(error, SyntaxError) else error  # str adds a file that it does not know
        yield Problem(tool.source, getattr(error, "lineno", 0) or 0, f"is no Python: {said}"[:300])
        return
    name = function_of(tool)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if name not in functions:
        yield document.problem((*at, "function"), f"{tool.source} has no function {name} at its top")
        return
    found = functions[name].args
    properties = _schema(document, at[1]).get("properties")
    asked: set[str] = set(cast("dict[str, Any]", properties)) if isinstance(properties, dict) else set()
    takes = {a.arg for a in (*found.args, *found.kwonlyargs)}
    given = [*found.args[: len(found.args) - len(found.defaults)], *found.posonlyargs]
    given += [a for a, default in zip(found.kwonlyargs, found.kw_defaults, strict=True) if default is None]
    line = functions[name].lineno
    if found.kwarg is None and (missing := asked - takes):
        told = ", ".join(sorted(missing))
        yield Problem(tool.source, line, f"{name} takes no {told}, which the tool's input_schema names")
    if wants := sorted({a.arg for a in given} - asked):
        told = ", ".join(wants)
        yield Problem(tool.source, line, f"{name} needs {told}, which the tool's input_schema does not name")
    if found.posonlyargs:
        yield Problem(tool.source, line, f"{name} takes arguments by place, and it is called by name")


def _knowledge_problems(manifest: pb.Manifest, document: Document, files: Files) -> Iterator[Problem]:
    if manifest.knowledge.files and {EVERY_TOOL, _SEARCH}.isdisjoint(manifest.uses):
        yield document.problem(("knowledge",), f"nothing could search it: uses has to name {_SEARCH}")
    for index, pattern in enumerate(manifest.knowledge.files):
        if not any(_is_named(path, pattern) for path in files):
            yield document.problem(("knowledge", "files", index), "no file of the pack is named like this")


def _is_named(path: str, pattern: str) -> bool:
    """`*` is any name in a folder, `**` any folders, none of them included."""
    names, at = path.split("/"), {0}
    for part in pattern.split("/"):
        if part == "**":
            at = {later for start in at for later in range(start, len(names) + 1)}
        else:
            at = {i + 1 for i in at if i < len(names) and fnmatch.fnmatchcase(names[i], part)}
    return len(names) in at


def _case_problems(tests: pb.PackTests, document: Document, manifest: pb.Manifest) -> Iterator[Problem]:
    own = {tool.name for tool in manifest.tools}
    for index, case in enumerate(tests.cases):
        if case.HasField("call") and case.call.tool not in own:
            yield document.problem(("cases", index, "call"), f"the pack has no tool {case.call.tool!r}")


def _schema(document: Document, index: int) -> dict[str, Any]:
    """As the file has it: a Struct would make its whole numbers floats."""
    return document.value["tools"][index].get("input_schema") or {}


def plain(value: Any) -> Any:
    """A Struct or Value of a test as plain JSON, whole numbers as such."""
    found = MessageToDict(value)
    return _whole(found)


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _whole(v) for k, v in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_whole(v) for v in cast("list[Any]", value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value
