"""The packs of this process: read from their directories, again whenever those change; a bad one never replaces a good one."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import structlog
from kfm.event.v1.system_events_pb2 import PackChangedEvent

from kfm_server.models import Personality
from kfm_server.personalities.files import read_directory
from kfm_server.personalities.pack import Pack, check
from kfm_server.personalities.problems import PackInvalid, Problem
from kfm_server.personalities.store import PackStore
from kfm_server.personalities.trust import Trust, TrustError
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.ports.packs import PackState

log = structlog.get_logger(__name__)
MOST_PACKS = 256
"""Packs that one server has."""
Changed = Callable[[Sequence[PackChangedEvent]], Awaitable[None]]
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
        self._watched = (*directories, trust.directory)
        self._look = cannot_confine
        self._cannot_confine: str | None = None
        self._packs: dict[str, Pack] = {}
        self._need_no_trust: set[str] = set()
        self._states: dict[str, PackState] = {}
        self._seen: _Stamps = {}
        self.personalities: Mapping[str, Personality] = {}
        """Those in force, by name."""

    def states(self) -> tuple[PackState, ...]:
        """As Packs."""
        return tuple(self._states[name] for name in sorted(self._states))

    async def load(self) -> Sequence[PackChangedEvent]:
        """Read all packs now; answers what became of it: packs that came, changed, went, and were newly refused.

        Raises JournalUnavailable, TrustError, and OSError for a directory of packs that cannot be read.
        """
        others = [d for d in self._directories if d not in self._trusted]
        # A host that can confine stays so; of one that cannot, it is asked again.
        if self._cannot_confine != "" and self._look is not None and any(map(_packs_in, others)):
            self._cannot_confine = await self._look()
        self._seen = await asyncio.to_thread(_stamps, self._watched)
        await asyncio.to_thread(self._trust.read_again)
        found, problems = await asyncio.to_thread(self._read)
        for name, pack in list(found.items()):
            try:
                await self._store.keep(pack)
            except OSError as error:  # a full disk, say: the others are taken all the same
                del found[name]
                problems[name] = [Problem("pack", 0, f"cannot be unpacked: {error}")]
                self._seen = {}  # again at the next look
        # What cannot be used any more stays as it was, as long as something of this name is there: another pack of
        # the name, in an earlier directory, is no better than the last good one. Unless its key is known no more.
        kept = {name: p for name, p in self._packs.items() if name in problems and self._is_trusted(p)}
        self._packs = dict(sorted({**found, **kept}.items()))
        self.personalities = {name: pack.personality for name, pack in self._packs.items()}
        states = {name: self._state(name, problems.get(name, ())) for name in {*self._packs, *problems}}
        events = list(_changes(self._states, states))
        for event in events:
            if event.problems:
                log.error("pack_refused", pack=event.pack, problems=[*event.problems], in_force=event.version)
        self._states = states
        return events

    async def run(self, changed: Changed, *, poll: float = 1.0) -> None:
        """Watch the directories until cancelled. What is still being written is left for the next look.

        `poll`: seconds between two looks; `changed` is called once other packs are in force, with what `load` answers.
        """
        last, waits_for = self._seen, ""
        while True:
            await asyncio.sleep(poll)
            before, last = last, await asyncio.to_thread(_stamps, self._watched)
            if last == self._seen or last != before:
                continue
            try:
                changes, waits_for = await self.load(), ""
                if any(change.digest != change.digest_before for change in changes):
                    in_force = {name: p.version for name, p in self.personalities.items()}
                    log.info("packs_changed", in_force=in_force)
                if changes:
                    await changed(changes)
            except (JournalUnavailable, TrustError, OSError) as away:
                self._seen = {}  # again at the next look
                if str(away) != waits_for:
                    waits_for = str(away)
                    log.warning("packs_wait", error=waits_for)

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
                    if at.parent in self._trusted:
                        self._need_no_trust.add(pack.digest)
                    found[name] = pack
                    problems.pop(name, None)
                except PackInvalid as error:
                    problems[name] = error.problems
        return found, problems

    def _is_trusted(self, pack: Pack) -> bool:
        return pack.digest in self._need_no_trust or not self._trust.refuses(pack)

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


def _changes(before: Mapping[str, PackState], after: Mapping[str, PackState]) -> Iterator[PackChangedEvent]:
    for name in sorted({*before, *after}):
        old, new = before.get(name, PackState(name)), after.get(name, PackState(name))
        refused = new.problems if new.problems != old.problems else ()
        if refused or old.digest != new.digest:
            yield PackChangedEvent(
                pack=name,
                version_before=old.version,
                digest_before=old.digest,
                version=new.version,
                digest=new.digest,
                signed_by=new.signed_by,
                problems=refused,
            )


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
