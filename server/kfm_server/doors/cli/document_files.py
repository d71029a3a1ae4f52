"""Which files `kfm memory add` reads, and what they are called in a collection."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

READ: Final = frozenset({".md", ".markdown", ".txt", ".rst", ".text", ".html", ".htm", ".xhtml", ".pdf"})
"""The types that are read of a folder, by the end of a name."""


@dataclass(slots=True)
class Found:
    """What paths of the command line hold: documents by name."""

    documents: list[tuple[str, Path]] = field(default_factory=list[tuple[str, Path]])


def find(paths: Sequence[Path]) -> Found:
    """Below a folder, names are the paths from there, and hidden files are left out; a file's name is its path."""
    found = Found()
    for path in (Path(os.path.abspath(path)) for path in paths):
        if path.is_dir():
            _below(path, found)
        else:
            found.documents.append((_name(path), path))
    found.documents = list(dict.fromkeys(found.documents))
    return found


def _name(path: Path) -> str:
    """From the working directory, or the whole path of what is not below it: no two files have one name."""
    here = Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def _below(root: Path, found: Found) -> None:
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.suffix.lower() in READ and path.is_file():
                found.documents.append((path.relative_to(root).as_posix(), path))
