"""Calls and their ends, as both tiers check and tell them: what comes out of code is read with care."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kfm_server.canonical import clean_text
from kfm_server.ports.sandbox import CodeFailed, Function, Grant, SandboxRefused, Snippet

MAX_TEXT: Final = 2000
"""Most that is told of a failure, in characters."""
MAX_CALL: Final = 4 * 1024 * 1024
"""Largest source and arguments together, as JSON, in bytes."""
MAX_MEMORY: Final = 4 * 1024**3
MIN_MEMORY: Final = 64 * 1024**2
MAX_SECONDS: Final = 3600
MAX_OUTPUT: Final = 16 * 1024**2
MAX_SCRATCH: Final = 1024**3
MAX_PROCESSES: Final = 64
_NAME = re.compile(r"[A-Za-z_]\w{0,99}", re.ASCII)
_BOUNDS: Final = {
    "cpu_seconds": (1, MAX_SECONDS),
    "wall_seconds": (0.001, MAX_SECONDS),
    "memory_bytes": (MIN_MEMORY, MAX_MEMORY),
    "output_bytes": (1, MAX_OUTPUT),
    "scratch_bytes": (4096, MAX_SCRATCH),
    "processes": (1, MAX_PROCESSES),
}


def check(code: Function | Snippet, arguments: Mapping[str, Any], grant: Grant) -> bytes:
    """The call's own part of a request, as JSON. Raises SandboxRefused for what is no call, or more than a call may be."""
    for name, (least, most) in _BOUNDS.items():
        if not least <= getattr(grant, name) <= most:
            raise SandboxRefused(f"{name} of a grant is from {least:g} to {most:g}.")
    for directory in grant.read_only:
        if not directory.is_absolute() or ".." in directory.parts or len(directory.parts) < 2:
            raise SandboxRefused(
                "The directories of a grant are absolute paths below the root, without '..'."
            )
    if not all(map(_NAME.fullmatch, arguments)):
        raise SandboxRefused("The names of arguments are Python names of at most 100 characters.")
    call: dict[str, Any] = {"file": "", "function": "", "source": "", "arguments": dict(arguments)}
    if isinstance(code, Function):
        if not _NAME.fullmatch(code.name):
            raise SandboxRefused("A function has a Python name of at most 100 characters.")
        if ".." in code.file.parts or not any(map(code.file.is_relative_to, grant.read_only)):
            raise SandboxRefused("The file of a function is below a read_only directory of the grant.")
        call |= {"file": str(code.file), "function": code.name}
    else:
        call["source"] = code.source
    try:
        request = json.dumps(call, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SandboxRefused(f"The arguments are not JSON: {error}") from None
    if len(request) > MAX_CALL:
        raise SandboxRefused(f"Source and arguments are more than max_call={MAX_CALL} bytes.")
    return request


def value_of(text: bytes) -> Any:
    """The value that code gave. Raises CodeFailed for what is no JSON."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()  # code can say what JSON cannot
        return value
    except (ValueError, RecursionError):
        raise CodeFailed("ValueError", "the result is no JSON value, or nested too deeply") from None


def text_of(printed: bytes | str) -> str:
    """What code printed, without control characters."""
    return clean_text(printed if isinstance(printed, str) else printed.decode("utf-8", "replace"))


def failure(kind: Any, text: Any, line: Any) -> CodeFailed:
    """A failure as the code told it: bounded, and without what does not belong into a sentence."""
    named = kind if isinstance(kind, str) and _NAME.fullmatch(kind) else "Exception"
    said = clean_text(text)[:MAX_TEXT] if isinstance(text, str) else ""
    at = line if isinstance(line, int) and 0 < line < 10**7 else 0
    return CodeFailed(named, said, at)


def directories(grant: Grant) -> tuple[Path, ...]:
    """The directories of a grant. Raises SandboxRefused for one that is not there."""
    for directory in grant.read_only:
        if not directory.is_dir():
            raise SandboxRefused(f"{directory} of the grant is no directory.")
    return grant.read_only
