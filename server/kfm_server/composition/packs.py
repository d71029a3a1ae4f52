"""Personality packs in this process: where they are read, who is trusted, and the sandbox that their tools run in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from kfm_server.composition.sandboxes import Sandboxes
from kfm_server.models import DEFAULT_PERSONALITY, Personality
from kfm_server.personalities import SHIPPED
from kfm_server.personalities.registry import PackRegistry
from kfm_server.personalities.store import PackStore, Rows
from kfm_server.personalities.tools import SandboxedTools
from kfm_server.personalities.trust import Trust, TrustError
from kfm_server.settings import Settings, SettingsError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PackParts:
    """What the rest of a server needs of packs."""

    registry: PackRegistry
    store: PackStore
    tools: SandboxedTools

    def personalities(self, settings: Settings) -> Mapping[str, Personality]:
        """Those of the packs, and over them those of the configuration, by name."""
        weakest_first = tuple(sorted(settings.models, key=lambda name: settings.models[name].max_complexity))
        found = {
            name: pack if pack.models else replace(pack, models=weakest_first)
            for name, pack in self.registry.personalities.items()
        }
        for name, personality in settings.personalities.items():
            built_in = personality == replace(DEFAULT_PERSONALITY, models=personality.models)
            if name not in found or not built_in:
                found[name] = personality
        return found


async def open_packs(sandboxes: Sandboxes, settings: Settings, rows: Rows) -> PackParts:
    """Read the packs. Raises SettingsError, OSError, JournalUnavailable; a pack that cannot be used is told, and left out."""
    home = settings.home
    try:
        trust = Trust(home / "pack-keys", settings.pack_trust)
    except TrustError as error:
        raise SettingsError(f"KFM_HOME: pack-keys: {error}") from None
    store = PackStore(home.absolute() / "packs", rows)
    own = Path(settings.packs) if settings.packs else home / "personalities"
    if own.exists() and not own.is_dir():
        raise SettingsError(f"{'packs' if settings.packs else 'KFM_HOME'}: {own} is no directory")
    if settings.packs and not own.exists():  # it may still come: it is looked at once a second
        log.warning("packs_directory_missing", directory=str(own))
    registry = PackRegistry(
        (SHIPPED, own),
        store,
        trust,
        trusted=(SHIPPED,),
        cannot_confine=lambda: sandboxes.why_not("process"),
    )
    await registry.load()
    return PackParts(registry, store, SandboxedTools(store, sandboxes.process))
