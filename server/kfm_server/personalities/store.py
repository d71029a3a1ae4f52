"""Packs by digest: on this disk, where the sandbox reads them, and in the database, where every process finds them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from kfm_server.personalities.files import read_archive, read_directory, replace, to_archive
from kfm_server.personalities.pack import Pack, check
from kfm_server.personalities.problems import PackInvalid

log = structlog.get_logger(__name__)
MOST_IN_MEMORY = 64
"""Packs that are kept in memory, the ones used last."""
Rows = Callable[..., Awaitable[Sequence[Any]]]


class PackStore:
    """Never changes what it has: another version is another digest."""

    def __init__(self, directory: Path, rows: Rows) -> None:
        """`directory`: its own, made at need; `rows`: the named statements of the database."""
        self._directory = directory
        self._rows = rows
        self._packs: dict[str, Pack] = {}
        self._stored: set[str] = set()

    async def keep(self, pack: Pack) -> None:
        """Have it from now on, here and for others. Raises JournalUnavailable, OSError."""
        if pack.digest not in self._stored:
            archive = await asyncio.to_thread(to_archive, pack.files)
            await self._rows("keep_pack", pack.digest, pack.name, pack.manifest.version, archive)
            await asyncio.to_thread(self._unpack, pack)
            self._stored.add(pack.digest)
        self._remember(pack)

    async def find(self, digest: str) -> Pack | None:
        """The pack of this digest, unpacked; None if nobody has it. Raises JournalUnavailable, OSError."""
        pack = self._packs.get(digest)
        if pack is None:
            rows = await self._rows("pack", digest)
            if not rows:
                return None
            try:
                pack = await asyncio.to_thread(lambda: check(read_archive(rows[0]["archive"])))
            except PackInvalid as error:  # of a release that took what this one does not
                log.error("stored_pack_refused", digest=digest, error=str(error))
                return None
            await asyncio.to_thread(self._unpack, pack)
        self._remember(pack)
        return pack

    def directory(self, digest: str) -> Path:
        """Where the files of a pack are that was kept or found."""
        return self._directory / digest

    def _remember(self, pack: Pack) -> None:
        self._packs.pop(pack.digest, None)
        self._packs[pack.digest] = pack
        while len(self._packs) > MOST_IN_MEMORY:
            del self._packs[next(iter(self._packs))]

    def _unpack(self, pack: Pack) -> None:
        target = self.directory(pack.digest)
        if _holds(target, pack):
            return
        if target.exists():  # nobody's edit: packs are edited where they are read from
            log.warning("unpacked_pack_was_changed", pack=pack.name, directory=str(target))
        try:
            replace(pack.files, target)
        except OSError:
            if not _holds(target, pack):  # another process of this home was first
                raise


def _holds(directory: Path, pack: Pack) -> bool:
    try:
        return read_directory(directory) == pack.files
    except PackInvalid:
        return False
