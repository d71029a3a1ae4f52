"""A start whose answer is lost over streamable HTTP: whatever the client does then, one turn."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp.client.client import Client as McpClient
from xenocomm import Client

from tests.support.http_proxy import Cut, Proxy
from tests.support.live import LiveServer

pytestmark = pytest.mark.requirement("E4")

ERAS = ["2026-07-28", "legacy"]


@pytest.fixture
async def proxy(live_server: LiveServer) -> AsyncIterator[Proxy]:
    async with Proxy.open(live_server.http) as proxy:
        yield proxy


async def start(proxy: Proxy, era: Any, text: str, **more: Any) -> dict[str, Any] | None:
    """One start by a client of its own, as after a crash; None if its answer was lost."""
    turn = {"turn": {"input": [{"text": text}]}, **more}
    try:
        async with McpClient(f"http://{proxy.address}/mcp", mode=era) as client:
            answer = await client.call_tool("kfm_turn_start", turn, read_timeout_seconds=10)
    except Exception:
        return None
    assert not answer.is_error, answer.content
    return answer.structured_content


async def turns_of(live: Client, text: str) -> list[str]:
    """The ids of the turns that the message started, from the journal."""
    found = [t async for t in live.turns.list()]
    return [t.turn_id for t in found if t.spec is not None and any(p.text == text for p in t.spec.input)]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("cut", Cut)
@pytest.mark.requirement("R4")
async def test_the_same_call_made_again_after_its_answer_was_lost_leads_to_the_same_turn(
    proxy: Proxy, live: Client, cut: Cut, era: str
) -> None:
    text = f"what is 2 + 2? {uuid.uuid4()}"
    proxy.lose(cut, text)
    lost = await start(proxy, era, text)
    assert proxy.cuts == 1
    assert (lost is not None) == (cut == Cut.AFTER_RESULT)
    again = await start(proxy, era, text)
    assert again is not None
    assert await turns_of(live, text) == [again["turn_id"]]
    if cut != Cut.AT_ONCE:
        assert "new idempotency_key" in again["note"]


@pytest.mark.parametrize("cut", Cut)
async def test_a_named_key_holds_over_eras_and_after_the_turn_was_looked_at(
    proxy: Proxy, live: Client, cut: Cut
) -> None:
    text, key = f"what is 3 + 3? {uuid.uuid4()}", f"k-{uuid.uuid4()}"
    proxy.lose(cut, text)
    await start(proxy, "2026-07-28", text, idempotency_key=key)
    first = await start(proxy, "legacy", text, idempotency_key=key)
    assert first is not None
    async with McpClient(f"http://{proxy.address}/mcp") as client:
        await client.call_tool("kfm_turn_get", {"turn_id": first["turn_id"]})
    assert (await start(proxy, "2026-07-28", text, idempotency_key=key)) is not None
    assert await turns_of(live, text) == [first["turn_id"]]


async def test_an_identical_call_after_its_turn_was_looked_at_is_another_turn(
    proxy: Proxy, live: Client
) -> None:
    text = f"what is 4 + 4? {uuid.uuid4()}"
    async with McpClient(f"http://{proxy.address}/mcp") as client:
        turn = {"turn": {"input": [{"text": text}]}}
        first = await client.call_tool("kfm_turn_start", turn)
        assert first.structured_content is not None
        await client.call_tool("kfm_turn_wait", {"turn_id": first.structured_content["turn_id"]})
        second = await client.call_tool("kfm_turn_start", turn)
        assert second.structured_content is not None
    assert "note" not in second.structured_content
    assert len(await turns_of(live, text)) == 2


async def test_a_key_in_meta_or_in_the_http_header_holds_as_the_argument_does(
    live_server: LiveServer, live: Client
) -> None:
    import httpx2

    text, key = f"what is 5 + 5? {uuid.uuid4()}", f"k-{uuid.uuid4()}"
    turn = {"turn": {"input": [{"text": text}]}}
    url = f"http://{live_server.http}/mcp"
    ids: set[str] = set()
    async with McpClient(url) as client:
        meta: Any = {"kfm/idempotency_key": key}
        for more, named in (({"idempotency_key": key}, None), ({}, meta)):
            answer = await client.call_tool("kfm_turn_start", turn | more, meta=named)
            assert answer.structured_content is not None
            ids.add(answer.structured_content["turn_id"])
            await client.call_tool("kfm_turn_get", {"turn_id": answer.structured_content["turn_id"]})
    async with httpx2.AsyncClient() as http:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "by-hand", "version": "1"},
        }
        params = {"name": "kfm_turn_start", "arguments": turn, "_meta": meta}
        posted = await http.post(
            url,
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
            headers={
                "Accept": "application/json, text/event-stream",
                "MCP-Protocol-Version": "2026-07-28",
                "Mcp-Method": "tools/call",
                "Mcp-Name": "kfm_turn_start",
                "Idempotency-Key": key,
            },
        )
        ids.add(posted.json()["result"]["structuredContent"]["turn_id"])
    assert list(ids) == await turns_of(live, text)
