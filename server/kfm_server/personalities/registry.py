"""The packs of this process: read from their directories, again whenever those change; a bad one never replaces a good one."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path

import structlog

from kfm_server.models import Personality
from kfm_server.personalities.files import read_directory
from kfm_server.personalities.pack import Pack, check
from kfm_server.personalities.problems import PackInvalid, Problem
from kfm_server.personalities.store import PackStore
from kfm_server.personalities.trust import Trust
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.ports.packs import PackState

log = structlog.get_logger(__name__)
MOST_PACKS = 256
"""Packs that one server has."""
_Stamps = Mapping[str, tuple[int, int, int]]


class PackRegistry:
    """As ports.packs.Packs. Of two directories with packs of one name the later one's counts."""

    def __init__(
        self,
        directories: Sequence[Path],
        store: PackStore,
        trust: Trust,
        trusted: Collection[Path] = (),
        cannot_confine: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """`trusted`: directories whose packs are taken as they are. `cannot_confine` is asked once if there are others:
        why this host cannot run their tools, empty if it can.
        """
        self._directories = directories
        self._store = store
        self._trust = trust
        self._trusted = frozenset(trusted)
        self._look = cannot_confine
        self._cannot_confine: str | None = None
        self._packs: dict[str, Pack] = {}
        self._states: dict[str, PackState] = {}
        self._seen: _Stamps = {}
        self.personalities: Mapping[str, Personality] = {}
        """Those in force, by name."""

    def states(self) -> tuple[PackState, ...]:
        """As Packs."""
        return tuple(self._states[name] for name in sorted(self._states))

    async def load(self) -> bool:
        """Read all packs now; answers whether another one is in force than before. Raises JournalUnavailable, OSError."""
        others = [d for d in self._directories if d not in self._trusted]
        if self._cannot_confine is None and self._look is not None and any(map(_packs_in, others)):
            self._cannot_confine = await self._look()
        self._seen = await asyncio.to_thread(_stamps, self._directories)
        found, problems = await asyncio.to_thread(self._read)
        for pack in found.values():
            await self._store.keep(pack)
        # What cannot be used any more stays as it was, as long as something of this name is there: another pack of
        # the name, in an earlier directory, is no better than the last good one.
        kept = {name: pack for name, pack in self._packs.items() if name in problems}
        self._packs = dict(sorted({**found, **kept}.items()))
        before, self.personalities = (
            self.personalities,
            {name: pack.personality for name, pack in self._packs.items()},
        )
        states = {name: self._state(name, problems.get(name, ())) for name in {*self._packs, *problems}}
        for name, state in states.items():
            if state.problems and state.problems != getattr(self._states.get(name), "problems", ()):
                log.error("pack_refused", pack=name, problems=list(state.problems), in_force=state.version)
        self._states = states
        return self.personalities != before

    async def run(self, changed: Callable[[], None], *, poll: float = 1.0) -> None:
        """Watch the directories until cancelled. What is still being written is left for the next look.

        `poll`: seconds between two looks; `changed` is called once other packs are in force.
        """
        last = self._seen
        while True:
            await asyncio.sleep(poll)
            before, last = last, await asyncio.to_thread(_stamps, self._directories)
            if last == self._seen or last != before:
                continue
            try:
                if await self.load():
                    log.info(
                        "packs_changed", packs={p.name: p.manifest.version for p in self._packs.values()}
                    )
                    changed()
            except (JournalUnavailable, OSError) as away:
                self._seen = {}  # again at the next look
                log.warning("packs_wait", error=str(away))

    def _state(self, name: str, problems: Sequence[Problem]) -> PackState:
        told = tuple(map(str, problems))
        pack = self._packs.get(name)
        if pack is None:
            return PackState(name, problems=told)
        return PackState(
            name,
            version=pack.manifest.version,
            digest=pack.digest,
            tools=tuple(tool.name for tool in pack.manifest.tools),
            skills=tuple(skill.name for skill in pack.skills),
            signed_by=self._trust.signer(pack),
            problems=told,
        )

    def _read(self) -> tuple[dict[str, Pack], dict[str, Sequence[Problem]]]:
        found: dict[str, Pack] = {}
        problems: dict[str, Sequence[Problem]] = {}
        for directory in self._directories:
            for at in _packs_in(directory):
                name = at.name.encode(errors="replace").decode()
                try:
                    files = read_directory(at)
                    in_force = self._packs.get(name)
                    pack = in_force if in_force is not None and in_force.files == files else check(files)
                    self._admit(at, pack)
                    found[name] = pack
                    problems.pop(name, None)
                except PackInvalid as error:
                    problems[name] = error.problems
        return found, problems

    def _admit(self, at: Path, pack: Pack) -> None:
        """Raises PackInvalid for a pack that is whole and yet not wanted here."""
        if pack.name != at.name:
            text = f"name: is {pack.name!r}, and its directory is called {at.name!r}"
            raise PackInvalid([Problem("manifest.yaml", 0, text)])
        if at.parent not in self._trusted and pack.manifest.tools and self._cannot_confine:
            text = f"brings tools, and this host cannot confine them: {self._cannot_confine}"
            raise PackInvalid([Problem("manifest.yaml", 0, text)])
        if at.parent not in self._trusted and (why := self._trust.refuses(pack)):
            raise PackInvalid([Problem("signature.json", 0, why)])


def _packs_in(directory: Path) -> list[Path]:
    """Directories that may be packs, by name."""
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    found = [at for at in entries if at.is_dir() and not at.name.startswith((".", "_"))]
    if len(found) > MOST_PACKS:
        raise OSError(f"{directory} has more than {MOST_PACKS} packs")
    return found


def _stamps(directories: Sequence[Path]) -> _Stamps:
    """Every file and directory of packs, with what changes when it does. A pack may be a link; in it none is followed."""
    found: dict[str, tuple[int, int, int]] = {}
    for directory in directories:
        try:
            packs = _packs_in(directory)
        except OSError:
            packs = []  # reading them says it
        for folder, folders, files in (at for pack in (directory, *packs) for at in os.walk(pack)):
            folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
            if folder == os.fspath(directory):
                folders.clear()
            for name in (*files, "."):
                path = os.path.join(folder, name)
                try:
                    at = os.lstat(path)
                except OSError:
                    continue
                found[path] = (at.st_mtime_ns, at.st_size, at.st_ino)
    return found
