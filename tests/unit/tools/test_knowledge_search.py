"""What the tool tells of what it finds: bounded, with sources, marked as data."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from kfm_server.ports.memory import (
    CollectionInfo,
    MemoryInvalid,
    MemoryNotFound,
    MemoryUnavailable,
    Mode,
    Passage,
)
from kfm_server.ports.tools import ToolCall, ToolError
from kfm_server.tools.knowledge_search import MAX_TEXT, NOTICE, KnowledgeSearch
from kfm_server.tools.registry import ToolRegistry

pytestmark = pytest.mark.requirement("T1", "T2")
CALL = ToolCall("key", 1, 1, "acme", "ann", progress=lambda text: None)


class Shelf:
    """The port Knowledge over a fixed list."""

    def __init__(self, *texts: str, error: Exception | None = None) -> None:
        self.passages = [
            Passage("house", f"{n}.md", "Title", "A > B", t, n, 0.5) for n, t in enumerate(texts)
        ]
        self.error = error
        self.asked: dict[str, Any] = {}

    async def collections(self, tenant_id: str, user_id: str) -> Sequence[CollectionInfo]:
        """None."""
        return []

    async def search(
        self,
        tenant_id: str,
        user_id: str,
        query: str,
        *,
        collections: Sequence[str] = (),
        k: int = 8,
        mode: Mode = "hybrid",
        where: Mapping[str, str] | None = None,
        also: Sequence[str] = (),
    ) -> list[Passage]:
        """All of it, to k."""
        self.asked = {"for": (tenant_id, user_id), "query": query, "collections": tuple(collections), "k": k}
        if self.error:
            raise self.error
        return self.passages[:k]


async def test_passages_come_with_their_source_and_are_marked_as_data() -> None:
    shelf = Shelf("Bread rises.")
    found = await KnowledgeSearch(shelf).call({"query": "bread", "collections": ["house"], "limit": 3}, CALL)
    assert shelf.asked == {"for": ("acme", "ann"), "query": "bread", "collections": ("house",), "k": 3}
    (passage,) = found["passages"]
    assert passage["untrusted_text"] == "Bread rises."
    assert (passage["collection"], passage["source"], passage["heading"]) == ("house", "0.md", "A > B")
    assert found["text"] == f"{NOTICE}\n[1] house/0.md: Title"


async def test_what_is_over_the_bound_is_left_out_and_counted() -> None:
    found = await KnowledgeSearch(Shelf("x" * (MAX_TEXT - 10), "y" * 50, "z" * 7)).call({"query": "x"}, CALL)
    assert [len(p["untrusted_text"]) for p in found["passages"]] == [MAX_TEXT - 10, 10]
    assert found["left_out"] == 47


async def test_finding_nothing_is_said() -> None:
    assert await KnowledgeSearch(Shelf()).call({"query": "x"}, CALL) == {
        "passages": [],
        "left_out": 0,
        "text": "Nothing was found.",
    }


@pytest.mark.parametrize(
    ("error", "retryable"),
    [(MemoryInvalid("no"), False), (MemoryNotFound("no"), False), (MemoryUnavailable("no"), True)],
)
async def test_failures_are_told_as_the_tools_own(error: Exception, retryable: bool) -> None:
    with pytest.raises(ToolError) as caught:
        await KnowledgeSearch(Shelf(error=error)).call({"query": "x"}, CALL)
    assert caught.value.retryable is retryable


async def test_a_process_without_a_database_says_so() -> None:
    with pytest.raises(ToolError, match="needs a database"):
        await KnowledgeSearch().call({"query": "x"}, CALL)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"query": ""},
        {"query": "  "},
        {"query": "x" * 2001},
        {"query": 5},
        {"query": "x", "limit": 21},
        {"query": "x", "limit": 0},
        {"query": "x", "collections": []},
        {"query": "x", "collections": ["a"] * 17},
        {"query": "x", "tenant_id": "evil"},
        {"query": "x", "where": {}},
    ],
)
def test_arguments_of_a_hostile_model_are_refused_by_the_schema(arguments: dict[str, Any]) -> None:
    entry = ToolRegistry([KnowledgeSearch()]).catalogue["knowledge_search"]
    assert entry.problem(arguments)
    assert not entry.problem({"query": "x", "collections": ["a"], "limit": 20})
