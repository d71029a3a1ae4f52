"""The seam of the sandbox: code that nobody trusts, what it may use, and how its end is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Tier = Literal["interpreter", "process"]
"""interpreter: a subset of Python in an interpreter without a system below it; process: CPython behind walls."""
Limit = Literal["cpu_seconds", "wall_seconds", "memory_bytes", "output_bytes", "scratch_bytes", "processes"]
"""Limits, by their names in a Grant."""
Wanted = Literal["auto", "interpreter", "process"]
"""A tier, or the best that the host can confine: `process` before `interpreter`."""

MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Grant:
    """What one call may use. There is no network in any tier: code that needs some asks for a tool that has it.

    read_only: directories, by their absolute paths, whose files it may read and import, in this order; a directory is
    never changed while a sandbox is open, a new version has a new path;
    cpu_seconds: of each of its processes; wall_seconds: from its start to its end; memory_bytes: address space of
    each of its processes; output_bytes: of its result and of what it prints, together; scratch_bytes: of the files
    in its working directory, which is empty at its start and gone at its end; processes: processes and threads at
    once, itself included: with 1 it can start none.
    The tier `interpreter` has no files and no processes at all, and one clock: the smaller of the two times.
    """

    read_only: tuple[Path, ...] = ()
    cpu_seconds: int = 5
    wall_seconds: float = 10.0
    memory_bytes: int = 256 * MiB
    output_bytes: int = MiB // 4
    scratch_bytes: int = 16 * MiB
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Function:
    """A function at the top of a Python file, called with the arguments by name. file: below a read_only directory."""

    file: Path
    name: str


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of Python that finds the arguments as variables; its value is that of the expression it ends with."""

    source: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """value: a JSON value; printed: standard output and error as they came, control characters taken out."""

    value: Any
    printed: str


class SandboxError(Exception):
    """Why code gave no value."""


class SandboxRefused(SandboxError):
    """It was not started: the host cannot confine it, the sandbox is closed, or the call is none."""


class CodeFailed(SandboxError):
    """The code's own failure. kind: the name of its exception; line: of its file or source, 0 if not known."""

    def __init__(self, kind: str, text: str, line: int = 0) -> None:
        where = f" (line {line})" if line else ""
        super().__init__(f"{kind}: {text}{where}" if text else f"{kind}{where}")
        self.kind, self.text, self.line = kind, text, line


class LimitReached(SandboxError):
    """It was stopped at a limit of its grant. printed: what it had printed by then."""

    def __init__(self, limit: Limit, grant: Grant, printed: str = "") -> None:
        super().__init__(f"The code reached {limit}={getattr(grant, limit)}.")
        self.limit: Limit = limit
        self.printed = printed


class Sandbox(Protocol):
    """Runs code. Calls may be concurrent; nothing of one is left for another, of whatever pack, tenant or session."""

    @property
    def tier(self) -> Tier:
        """What keeps the code in."""
        ...

    async def run(
        self, code: Function | Snippet, arguments: Mapping[str, Any], grant: Grant | None = None
    ) -> Outcome:
        """Run it to its end; without a grant it has the limits of `Grant()` and no files.

        Once this returns or raises, also by cancellation, no process of the call is left. Raises SandboxRefused,
        CodeFailed, LimitReached.
        """
        ...

    async def close(self) -> None:
        """End everything; running calls end with SandboxRefused, as do those to come."""
        ...


@dataclass(frozen=True, slots=True)
class Confinement:
    """Whether this host can confine code in a tier, and if not why; the reason is a sentence for operators."""

    tier: Tier
    able: bool
    reason: str


def require(tier: Tier, found: Sequence[Confinement]) -> None:
    """Refuse what needs a tier that was not found able. Raises SandboxRefused with the reason."""
    for confinement in found:
        if confinement.tier == tier:
            if confinement.able:
                return
            raise SandboxRefused(f"This host cannot confine code ({tier}): {confinement.reason}")
    raise SandboxRefused(f"Nobody looked whether this host can confine code ({tier}).")
