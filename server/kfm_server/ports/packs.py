"""The seam of personality packs: what doors may ask of them."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PackState:
    """A pack as it is in force, and why what stands on disk now is not, if so.

    digest: SHA-256 in hex over its files, empty if no version is in force; signed_by: name of a known key; problems: each
    with file and line.
    """

    name: str
    version: str = ""
    digest: str = ""
    tools: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    signed_by: str = ""
    problems: tuple[str, ...] = ()


class Packs(Protocol):
    """The packs of this process."""

    def states(self) -> tuple[PackState, ...]:
        """All that were found, by name."""
        ...


class _NoPacks:
    def states(self) -> tuple[PackState, ...]:
        """None."""
        return ()


NO_PACKS: Packs = _NoPacks()
"""For a process that has none."""
