"""The configuration in force: read at the start, read again when asked or when its files change, swapped whole."""

import asyncio
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from kfm_server.settings import reading
from kfm_server.settings.reading import Reading, Value
from kfm_server.settings.schema import Settings, SettingsError

FILE = "config.toml"


@dataclass(frozen=True, slots=True)
class Change:
    """What a new reading changed: names of settings in force now, and of those that wait for a restart."""

    applied: tuple[str, ...]
    need_restart: tuple[str, ...]
    digest: str


class Config:
    """Settings, where they came from, and how to read them again. A reading that cannot be used changes nothing.

    Its methods are not for several threads at one time.
    """

    def __init__(self, read: Callable[[], Reading]) -> None:
        """Raises SettingsError."""
        self._read = read
        self._reading = read()
        self._tools: Collection[str] | None = None
        self._packs: Callable[[], Collection[str]] | None = None
        self.loaded_at = time.time()
        self.last_error = ""
        self.asked = asyncio.Event()
        """Set it to have everything read again."""

    @classmethod
    def load(
        cls,
        flags: Mapping[str, object] | None = None,
        *,
        path: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "Config":
        """Read flags (those that are None are left out), KFM_* variables and config.toml. Raises SettingsError.

        `path`: the file; else KFM_CONFIG names it, else it is config.toml in `home`, which need not be there.
        """
        source = os.environ if environment is None else environment
        flags = dict(flags or {})
        named = path or (Path(source["KFM_CONFIG"]) if source.get("KFM_CONFIG") else None)
        home = Path(str(flags.get("home") or source.get("KFM_HOME") or Settings().home))
        seen = False

        def read() -> Reading:
            nonlocal seen
            file = named or home / FILE
            found = reading.read(flags, source, file, required=named is not None or seen)
            seen = (
                seen or file.exists()
            )  # once there, a file that is gone is no reason to forget what it said
            return found

        return cls(read)

    @classmethod
    def given(cls, settings: Settings) -> "Config":
        """What a program made itself; it never changes."""
        return cls(lambda: reading.given(settings))

    @property
    def settings(self) -> Settings:
        """What is in force."""
        return self._reading.settings

    @property
    def in_force(self) -> Reading:
        """The settings in force, with where each was set."""
        return self._reading

    @property
    def values(self) -> Mapping[str, Value]:
        """The settings in force by name, with where each was set."""
        return self._reading.values

    @property
    def digest(self) -> str:
        """SHA-256 in hex over the settings in force."""
        return self._reading.digest

    def require_tools(self, known: Collection[str]) -> None:
        """From now on personalities may name only these tools. SettingsError if one names another already."""
        self._reading.check_tools(known)
        self._tools = known

    def require_default(self, packs: Callable[[], Collection[str]]) -> None:
        """From now on the default personality has to be a configured one or a pack. SettingsError if it is neither already."""
        self._reading.check_default(packs())
        self._packs = packs

    def read_again(self) -> Reading:
        """A new reading, checked, not in force. Blocks on files. Raises SettingsError."""
        found = self._read()
        if self._tools is not None:
            found.check_tools(self._tools)
        if self._packs is not None:
            found.check_default(self._packs())
        return found

    def would_be(self, found: Reading) -> Reading:
        """What would be in force: the reading, but for what needs a restart."""
        return reading.in_force(self._reading, found)

    def take(self, found: Reading) -> Change:
        """Put a reading in force, but for what needs a restart."""
        old = self._reading
        names = reading.changed(old, found)
        self._reading = self.would_be(found)
        self.loaded_at, self.last_error = time.time(), ""
        applied = set(reading.changed(old, self._reading))
        return Change(
            tuple(n for n in names if n in applied), tuple(n for n in names if n not in applied), self.digest
        )

    def failed(self, error: SettingsError) -> None:
        """Note why the latest reading could not be used."""
        self.last_error = str(error)
