"""What packs bring to be searched: put into memory when a turn of the pack first searches, under the pack's digest."""

import asyncio

from kfm_server.models import Personality
from kfm_server.personalities.store import PackStore
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.ports.memory import Library, MemoryUnavailable, SourceDocument


class PackKnowledge:
    """As ports.memory.PackLibrary. Every version has a collection of its own, whose owner is the pack."""

    def __init__(self, store: PackStore, library: Library) -> None:
        self._store = store
        self._library = library
        self._there: dict[tuple[str, str], str] = {}
        self._one_at_a_time = asyncio.Lock()

    async def owner_of(self, tenant_id: str, personality: Personality) -> str:
        """As PackLibrary."""
        key = (tenant_id, personality.pack)
        if not personality.pack or key in self._there:
            return self._there.get(key, "")
        async with self._one_at_a_time:
            try:
                pack = await self._store.find(personality.pack)
            except (JournalUnavailable, OSError) as error:
                raise MemoryUnavailable(f"the pack {personality.name}: {error}") from error
            documents = [SourceDocument(path, body) for path, body in pack.knowledge()] if pack else []
            owner = f"pack:{personality.pack}" if documents else ""
            if documents:
                name = f"{personality.name}@{personality.version}:{personality.pack[:12]}"
                await self._library.ingest(tenant_id, name, documents, owner=owner)
            self._there[key] = owner
            return owner
