"""The files of a pack: read from a directory or an archive, bounded, with nothing in them that leads outside."""

import contextlib
import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path, PurePosixPath

from kfm_server.personalities.problems import PackInvalid, Problem

MOST_FILES = 2_000
"""Files of one pack."""
MOST_FILE_BYTES = 16 * 1024 * 1024
"""Bytes of one file."""
MOST_BYTES = 64 * 1024 * 1024
"""Bytes of a pack, and of its archive."""
MOST_FOLDERS = 12
"""Folders around a file."""
MOST_ENTRIES = 20_000
"""Entries of an archive, files and folders: before a table of them is made."""
SIGNATURE = "signature.json"
"""Not part of what is signed."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,120}")
_LEFT_OUT = frozenset({"__pycache__"})
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NO_ZIP = (zipfile.BadZipFile, NotImplementedError, ValueError)
"""What zipfile raises for a directory of an archive that is none: a broken one, one of another version, a wrong name."""
_NOT_READ = (*_NO_ZIP, zlib.error, EOFError, OverflowError)
"""What it raises for an entry: also for contents that are broken, that end early, and that lie where no file reaches."""
_ENCRYPTED = 1
_ENTRY = b"PK\x01\x02"
_LOCAL_HEADER = 30
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

Files = Mapping[str, bytes]
"""Contents by path from the pack's directory, with `/`, in the order of the paths."""


def read_directory(directory: Path) -> Files:
    """All files. Hidden ones, `__pycache__`, and the copies that editors leave (`x~`, `#x#`) are left out. Raises PackInvalid."""
    found: dict[str, bytes] = {}
    size = 0

    def visit(at: Path, prefix: str) -> None:
        nonlocal size
        try:
            entries = sorted(os.scandir(at), key=lambda entry: entry.name)
        except OSError as error:
            raise _wrong(prefix or at.name, f"cannot be read: {error.strerror}") from None
        for entry in entries:
            path = f"{prefix}{entry.name}"
            if _is_left_out(entry.name):
                continue
            check_path(path)
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
            except OSError as error:
                raise _wrong(path, f"cannot be read: {error.strerror}") from None
            if stat.S_ISDIR(mode):
                visit(Path(entry.path), f"{path}/")
            elif stat.S_ISREG(mode):
                found[path] = _read(Path(entry.path), path)
                size += len(found[path])
                _check_size(len(found), size)
            else:
                raise _wrong(path, "is neither a file nor a directory; links are not taken")

    visit(directory, "")
    _check_alike(found)
    return dict(sorted(found.items()))


def read_archive(content: bytes) -> Files:
    """All files of a zip archive. Raises PackInvalid: for paths that lead outside, links, and what is too large."""
    if len(content) > MOST_BYTES:
        raise _wrong("archive", f"has more than {MOST_BYTES} bytes")
    if content.count(_ENTRY) > MOST_ENTRIES:  # whatever its own count says
        raise _wrong("archive", f"has more than {MOST_ENTRIES} entries")
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except _NO_ZIP:
        raise _wrong("archive", "is no zip archive") from None
    found: dict[str, bytes] = {}
    size = 0
    with archive:
        _check_apart(archive.infolist())
        for info in archive.infolist():
            if info.filename.endswith("/"):
                continue
            check_path(info.filename)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise _wrong(info.filename, "is no plain file; links are not taken")
            if info.filename in found:
                raise _wrong(info.filename, "stands in the archive twice")
            if info.compress_type not in _METHODS:  # of others zipfile does not bound what it unpacks at once
                raise _wrong(info.filename, "is packed in another way than zip's deflate")
            if info.flag_bits & _ENCRYPTED:
                raise _wrong(info.filename, "is encrypted")
            try:
                with archive.open(info) as opened:
                    body = opened.read(MOST_FILE_BYTES + 1)
            except _NOT_READ as error:
                raise _wrong(info.filename, f"cannot be unpacked: {error or 'it ends early'}") from None
            _check_file(info.filename, len(body))
            size += len(body)
            found[info.filename] = body
            _check_size(len(found), size)
    for path in found:
        for folder in PurePosixPath(path).parents:
            if str(folder) in found:
                raise _wrong(str(folder), "is a file and a folder")
    _check_alike(found)
    return dict(sorted(found.items()))


def to_archive(files: Files) -> bytes:
    """The files as a zip archive: the same bytes for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(files.items()):
            info = zipfile.ZipInfo(path, _ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def write(files: Files, directory: Path) -> None:
    """Make a directory of them; whoever looks sees all of it, or nothing. Raises OSError, also if something is there."""
    with _beside(directory) as aside:
        _fill(aside / "new", files)
        (aside / "new").rename(directory)


def replace(files: Files, directory: Path) -> None:
    """As `write`, in the place of what is there; that stays if this fails. Raises OSError."""
    with _beside(directory) as aside:
        _fill(aside / "new", files)
        there = os.path.lexists(directory)
        if there:
            directory.rename(aside / "old")
        try:
            (aside / "new").rename(directory)
        except OSError:
            if there:
                (aside / "old").rename(directory)
            raise


def digest_of(files: Files) -> str:
    """SHA-256 in hex over paths and contents; the signature is no part of it."""
    whole = hashlib.sha256()
    for path, content in sorted(files.items()):
        if path != SIGNATURE:
            whole.update(f"{path}\0{len(content)}\0".encode() + hashlib.sha256(content).digest())
    return whole.hexdigest()


def check_path(path: str) -> None:
    """Require a plain relative path. Raises PackInvalid."""
    parts = PurePosixPath(path).parts
    if not parts or path != "/".join(parts) or not all(map(_NAME.fullmatch, parts)):
        raise _wrong(path[:200], "is no name of a file in a pack: letters, digits, `_`, `.`, `-` and spaces")
    if len(parts) > MOST_FOLDERS:
        raise _wrong(path[:200], f"lies in more than {MOST_FOLDERS} folders")
    if not _LEFT_OUT.isdisjoint(parts):
        raise _wrong(path[:200], "is no name of a file in a pack: Python puts its own there")


@contextlib.contextmanager
def _beside(directory: Path) -> Generator[Path]:
    """A hidden directory on the same disk, gone afterwards. It is in the way of nobody: not even of one left by a crash."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent)
    try:
        yield Path(aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fill(directory: Path, files: Files) -> None:
    directory.mkdir()
    for path, content in files.items():
        check_path(path)
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _is_left_out(name: str) -> bool:
    return name.startswith((".", "#")) or name.endswith("~") or name in _LEFT_OUT


def _check_alike(paths: Iterable[str]) -> None:
    """Some disks take names for the same that differ only in case: a pack would lose a file there."""
    seen: dict[str, str] = {}
    for path in paths:
        for name in (path, *(str(folder) for folder in PurePosixPath(path).parents)):
            if seen.setdefault(name.lower(), name) != name:
                raise _wrong(name, f"differs from {seen[name.lower()]} only in case")


def _check_apart(entries: list[zipfile.ZipInfo]) -> None:
    """No two of them share bytes, by which a small archive would have many large files."""
    end = 0
    for info in sorted(entries, key=lambda entry: entry.header_offset):
        if info.header_offset < end:
            raise _wrong(info.filename, "lies over another entry of the archive")
        end = info.header_offset + _LOCAL_HEADER + info.compress_size


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _read(file: Path, path: str) -> bytes:
    try:
        with open(file, "rb", opener=_no_link) as opened:
            content = opened.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from None
    _check_file(path, len(content))
    return content


def _check_file(path: str, size: int) -> None:
    if size > MOST_FILE_BYTES:
        raise _wrong(path, f"has more than {MOST_FILE_BYTES} bytes, the most that a file of a pack may have")


def _check_size(files: int, size: int) -> None:
    if files > MOST_FILES:
        raise _wrong("pack", f"has more than {MOST_FILES} files")
    if size > MOST_BYTES:
        raise _wrong("pack", f"has more than {MOST_BYTES} bytes")


def _wrong(file: str, why: str) -> PackInvalid:
    return PackInvalid([Problem(file, 0, why)])
