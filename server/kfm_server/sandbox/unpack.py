"""Unpacks an archive of a pack: all of it is judged before anything is written."""

import os
import shutil
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_LOCAL_HEADER: Final = 30
_END: Final = b"PK\x05\x06"
_MAX_COMMENT: Final = 65535
_ENTRY: Final = 512
"""Most that an entry of the directory may take, on average, in bytes."""
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """archive_bytes: of the archive; total_bytes, entries: of what it holds; ratio: how much larger than its packed
    form a file may be; depth, name_length: of a path, in parts and in bytes."""

    archive_bytes: int = 32 * 1024 * 1024
    total_bytes: int = 64 * 1024 * 1024
    entries: int = 2000
    ratio: int = 100
    depth: int = 12
    name_length: int = 240


class ArchiveRefused(Exception):
    """Why an archive is not unpacked; nothing of it was left on disk."""

    def __init__(self, reason: str, entry: str = "") -> None:
        super().__init__(f"{entry[:100]!r}: {reason}" if entry else reason)
        self.entry = entry


def unpack(archive: Path, target: Path, limits: UnpackLimits | None = None) -> list[str]:
    """Unpack a zip archive into the new directory `target`; the paths of its files, in order.

    All or nothing: `target` is there only if everything is in it. Files get the mode 0644 whatever the archive says.
    Raises ArchiveRefused, and OSError from the disk, FileExistsError if `target` is there.
    """
    limits = limits or UnpackLimits()
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open("rb") as file:
        _check_directory(file.fileno(), limits)
        try:
            with zipfile.ZipFile(file) as opened:
                files = _judge(opened.infolist(), limits)
                place = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
                try:
                    for path, entry in files:
                        _write(opened, entry, place / path)
                    for folder in (place, *(p for p in place.rglob("*") if p.is_dir())):
                        folder.chmod(0o755)
                    place.rename(target)
                except BaseException:
                    shutil.rmtree(place, ignore_errors=True)
                    raise
        except (
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
            EOFError,
            ValueError,
        ) as error:
            raise ArchiveRefused(f"it is no sound zip archive: {error}") from None
    return [path for path, _ in files]


def _check_directory(file: int, limits: UnpackLimits) -> None:
    """Before the library reads the whole directory of the archive into memory."""
    size = os.fstat(file).st_size
    if size > limits.archive_bytes:
        raise ArchiveRefused(f"it is larger than archive_bytes={limits.archive_bytes}")
    tail = os.pread(file, _MAX_COMMENT + 22, max(0, size - _MAX_COMMENT - 22))
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise ArchiveRefused("it is no zip archive")
    if int.from_bytes(tail[at + 12 : at + 16], "little") > limits.entries * _ENTRY:
        raise ArchiveRefused(f"it has more than entries={limits.entries}")


def _judge(entries: list[zipfile.ZipInfo], limits: UnpackLimits) -> list[tuple[str, zipfile.ZipInfo]]:
    """The files, by path. Raises ArchiveRefused."""
    if len(entries) > limits.entries:
        raise ArchiveRefused(f"it has more than entries={limits.entries}")
    files: dict[str, tuple[str, zipfile.ZipInfo]] = {}
    folders: dict[str, str] = {}
    total = 0
    for entry in entries:
        path = _path(entry, limits)
        parents = PurePosixPath(path).parents
        for folder in (str(p) for p in parents if p.parts):
            if folders.setdefault(_same(folder), folder) != folder:
                raise ArchiveRefused("differs from another path only in case or in form", entry.filename)
        if entry.is_dir():
            if folders.setdefault(_same(path), path) != path:
                raise ArchiveRefused("differs from another path only in case or in form", entry.filename)
            continue
        if _same(path) in files:
            raise ArchiveRefused("is there twice, perhaps in another case or form", entry.filename)
        files[_same(path)] = path, entry
        total += entry.file_size
        if total > limits.total_bytes:
            raise ArchiveRefused(f"it holds more than total_bytes={limits.total_bytes}")
        if entry.file_size > 4096 + limits.ratio * entry.compress_size:
            raise ArchiveRefused(f"is packed more than ratio={limits.ratio} times", entry.filename)
    for both in files.keys() & folders.keys():
        raise ArchiveRefused("is a file and a directory", files[both][0])
    _check_overlap(entries)
    return list(files.values())


def _path(entry: zipfile.ZipInfo, limits: UnpackLimits) -> str:
    name = entry.orig_filename
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind and not (stat.S_ISREG(kind) or (stat.S_ISDIR(kind) and entry.is_dir())):
        raise ArchiveRefused("is neither a file nor a directory", name)
    if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveRefused("is encrypted, or packed by another way than deflate", name)
    if len(name.encode("utf-8", "replace")) > limits.name_length:
        raise ArchiveRefused(f"has a name longer than name_length={limits.name_length}", name)
    parts = name.removesuffix("/").split("/")
    if len(parts) > limits.depth:
        raise ArchiveRefused(f"is deeper than depth={limits.depth}", name)
    if (
        not name.isprintable()
        or any(c in name for c in '\\:*?"<>|')
        or name != unicodedata.normalize("NFC", name)
    ):
        raise ArchiveRefused("has characters that a path of a pack has not", name)
    if any(part in ("", ".", "..") or part != part.strip() or part.endswith(".") for part in parts):
        raise ArchiveRefused("is no path below the pack", name)
    if "__pycache__" in parts or name.endswith((".pyc", ".pyo", ".pth")):
        raise ArchiveRefused("is code that nobody can read", name)
    return "/".join(parts)


def _same(path: str) -> str:
    return unicodedata.normalize("NFKC", path).casefold()


def _check_overlap(entries: list[zipfile.ZipInfo]) -> None:
    end = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if entry.header_offset < end:
            raise ArchiveRefused("lies over another entry", entry.filename)
        end = entry.header_offset + _LOCAL_HEADER + entry.compress_size


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Raises ArchiveRefused for a file that is longer than the archive says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(entry) as source, path.open("xb") as file:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > entry.file_size:
                raise ArchiveRefused("is longer than it says", entry.filename)
            file.write(chunk)
    path.chmod(0o644)
