"""Memory in this process: where vectors are kept, what makes them, and the tool that searches them."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from kfm_server.memory.documents import DocumentStore
from kfm_server.memory.facts import Facts
from kfm_server.memory.hashing import HashingEmbedder
from kfm_server.memory.knowledge import KnowledgeBase
from kfm_server.memory.pgvector import PgVectorStore
from kfm_server.memory.preferences import CachedFacts
from kfm_server.memory.provider_embedder import EmbeddingModel, ProviderEmbedder
from kfm_server.memory.service import MemoryService
from kfm_server.memory.tenants import TenantPool
from kfm_server.ports.cache import Cache
from kfm_server.ports.history import SessionHistory
from kfm_server.ports.memory import Memory, PackLibrary
from kfm_server.ports.models import Embeddings
from kfm_server.ports.vectors import VectorStore, VectorsUnavailable
from kfm_server.providers.factory import Providers
from kfm_server.settings import Settings, SettingsError
from kfm_server.steps.gateway import Gateway
from kfm_server.tools.knowledge_search import KnowledgeSearch
from kfm_server.tools.registry import ToolRegistry
from kfm_server.tools.todos_of_users import Rows, TodosOfUsers
from kfm_server.tools.user_memory import Recall, Remember

VECTORS_FILE = "vectors.sqlite"
"""Below the home directory, where vectors are kept in a file."""


async def open_memory(
    stack: AsyncExitStack,
    settings: Settings,
    dsn: str,
    providers: Providers,
    history: SessionHistory,
    rows: Rows,
    cache: Cache,
) -> MemoryService:
    """Over a migrated database, which is first asked when memory is; `rows`: its named statements. Raises SettingsError."""
    pool = await stack.enter_async_context(TenantPool.open(dsn))
    vectors: VectorStore = PgVectorStore(pool)
    if settings.knowledge.store == "file":
        from kfm_server.memory.filestore import FileVectorStore  # with numpy, which takes a while

        try:
            vectors = await stack.enter_async_context(FileVectorStore.open(settings.home / VECTORS_FILE))
        except VectorsUnavailable as error:
            raise SettingsError(f"KFM_KNOWLEDGE_STORE: {error}") from error
    name, gateway = settings.knowledge.embedder, Gateway(providers.get)

    def model() -> EmbeddingModel:
        _, spec = providers.get(name)
        return EmbeddingModel(_Priced(gateway, name), spec.provider, spec.model)

    embedder = ProviderEmbedder(model) if name else HashingEmbedder()
    knowledge = KnowledgeBase(DocumentStore(pool), vectors, embedder)
    return MemoryService(history, CachedFacts(Facts(pool), cache), knowledge, (TodosOfUsers(rows),))


class _Priced:
    """Embeds by a configured model, within its time, and has each call counted with its tokens and its price."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self._gateway, self._name = gateway, name

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """As Embeds says."""
        del model  # the gateway knows it by its configured name
        found, _ = await self._gateway.embed(self._name, texts)
        return found


def bind_memory(tools: ToolRegistry, memory: Memory, packs: PackLibrary) -> None:
    """Let the tools of memory use this, and what packs bring."""
    for tool in tools.tools.values():
        if isinstance(tool, KnowledgeSearch):
            tool.bind(memory.knowledge, packs)
        elif isinstance(tool, Remember | Recall):
            tool.bind(memory.facts)
