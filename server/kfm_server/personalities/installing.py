"""Putting a pack into the directory that a server watches, whole or not at all, and taking it away."""

import tempfile
from pathlib import Path

from kfm_server.personalities.files import MOST_BYTES, Files, read_archive, read_directory, replace
from kfm_server.personalities.pack import MANIFEST, Pack, check, load
from kfm_server.personalities.problems import PackInvalid, Problem


def read(source: Path) -> Pack:
    """The pack in a directory or a zip archive. Raises PackInvalid."""
    return check(read_files(source))


def read_files(source: Path) -> Files:
    """Its files, as they are. Raises PackInvalid."""
    if source.is_dir():
        return read_directory(source)
    try:
        if source.stat().st_size > MOST_BYTES:
            raise PackInvalid([Problem(source.name, 0, f"has more than {MOST_BYTES} bytes")])
        return _unwrapped(read_archive(source.read_bytes()))
    except OSError as error:
        raise PackInvalid([Problem(source.name, 0, f"cannot be read: {error.strerror}")]) from None


def _unwrapped(files: Files) -> Files:
    """Without the folder that archives of folders have around everything."""
    folder = next(iter(files), "").partition("/")[0] + "/"
    if (
        MANIFEST in files
        or f"{folder}{MANIFEST}" not in files
        or not all(p.startswith(folder) for p in files)
    ):
        return files
    return {path.removeprefix(folder): content for path, content in files.items()}


def installed(name: str, into: Path) -> Pack | None:
    """What is there under this name; None for nothing, or nothing that can be used."""
    try:
        return load(into / name)
    except PackInvalid:
        return None


def install(pack: Pack, into: Path) -> Path:
    """Put it there, in place of what was there under its name. Raises OSError."""
    replace(pack.files, into / pack.name)
    return into / pack.name


def uninstall(name: str, where: Path) -> None:
    """Take it away; turns that began with it keep it. Raises OSError, FileNotFoundError if it is not there."""
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=where) as aside:
        (where / name).rename(Path(aside) / name)
