"""What a pack may do and what looks strange in it: for whoever decides whether to install it."""

import ast
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from kfm_server.personalities.pack import DEFAULT_MIB, DEFAULT_SECONDS, Pack
from kfm_server.personalities.problems import Problem

_REACHING = frozenset(
    {
        "asyncio",
        "ctypes",
        "ftplib",
        "http",
        "multiprocessing",
        "os",
        "requests",
        "shutil",
        "signal",
        "smtplib",
    }
    | {"socket", "ssl", "subprocess", "sys", "threading", "urllib", "webbrowser"}
)
"""Modules by which code reaches beyond itself. The sandbox stops it; that it tries is worth knowing."""
_CALLS = frozenset({"__import__", "compile", "eval", "exec"})


@dataclass(frozen=True, slots=True)
class Permission:
    """One thing that a pack may do; equal ones are the same permission."""

    what: str
    of: str

    def __str__(self) -> str:
        return f"{self.what} {self.of}"


def permissions(pack: Pack) -> frozenset[Permission]:
    """All that it asks for."""
    found = {Permission("uses the server's tool", name) for name in pack.manifest.uses}
    found |= {Permission("calls the model", name) for name in pack.manifest.models or ("any",)}
    for tool in pack.manifest.tools:
        limits = f"{tool.timeout_seconds or DEFAULT_SECONDS:g} s, {tool.memory_mib or DEFAULT_MIB} MiB"
        found.add(Permission("runs code in the sandbox:", f"{tool.name} ({limits})"))
    if pack.manifest.knowledge.files:
        found.add(Permission("brings", "knowledge"))
    return frozenset(found)


def remarks(pack: Pack) -> Iterator[Problem]:
    """What a reader would want to look at: none of it keeps the pack from running."""
    for path, content in pack.files.items():
        if path.endswith(".py"):
            yield from _code(path, content)
        if path.endswith((".md", ".txt", ".yaml", ".yml", ".py")):
            yield from _hidden(path, content.decode("utf-8", "replace"))


def _code(path: str, content: bytes) -> Iterator[Problem]:
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield Problem(path, 0, "is no Python, and no tool of the pack")
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0]]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
            yield Problem(path, node.lineno, f"calls {node.func.id}")
        for name in _REACHING.intersection(names):
            yield Problem(path, getattr(node, "lineno", 0), f"imports {name}")


def _hidden(path: str, text: str) -> Iterator[Problem]:
    """Characters that a reader does not see and a model does."""
    for number, line in enumerate(text.splitlines(), 1):
        for character in line:
            if unicodedata.category(character) == "Cf":
                name = unicodedata.name(character, f"U+{ord(character):04X}")
                yield Problem(path, number, f"holds an invisible character: {name}")
                break
