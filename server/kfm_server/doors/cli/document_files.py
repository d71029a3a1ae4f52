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
    """What paths of the command line hold: documents by name, and what is not read, with the reason.

    `skipped`: files of a type that is not read. `unread`: a folder could not be read, and nobody knows what it has.
    """

    documents: list[tuple[str, Path]] = field(default_factory=list[tuple[str, Path]])
    skipped: list[str] = field(default_factory=list[str])
    refused: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    unread: bool = False


def find(paths: Sequence[Path]) -> Found:
    """Below a folder, names are the paths from there, and hidden files are left out; a file's name is its path.

    Links below a folder are read where they lead to a file of the same folder, and refused where they lead out of it.
    A link that is itself among the paths is followed.
    """
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
    def unreadable(error: OSError) -> None:
        found.unread = True
        found.refused.append((_within(root, Path(error.filename)), error.strerror or "cannot be read"))

    for place, folders, names in os.walk(root, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for folder in folders:
            if (path := Path(place, folder)).is_symlink() and (why := _leads_wrong(root, path)):
                found.refused.append((_within(root, path), why))
        for name in sorted(names):
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in READ:
                found.skipped.append(_within(root, path))
            elif path.is_symlink() and (why := _leads_wrong(root, path)):
                found.refused.append((_within(root, path), why))
            elif path.is_file():
                found.documents.append((_within(root, path), path))


def _within(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _leads_wrong(root: Path, link: Path) -> str:
    """Why a link is not read; empty if it leads to something below the folder."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return "the link leads nowhere"
    return "" if target.is_relative_to(root.resolve()) else "the link leads out of the folder"
