"""A start whose answer is lost over streamable HTTP: whatever the client does then, one turn."""

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client as McpClient
from mcp_types import Implementation
from xenocomm import Client

from tests.support.http_proxy import Cut, Proxy
from tests.support.live import LiveServer
from tests.support.mcp import HTTP_2025, HTTP_2026, STDIO_2025, STDIO_2026, connected

pytestmark = pytest.mark.requirement("E4")

ERAS = ["2026-07-28", "2025-11-25"]


@pytest.fixture
async def proxy(live_server: LiveServer) -> AsyncIterator[Proxy]:
    async with Proxy.open(live_server.http) as proxy:
        yield proxy


@dataclass
class ByHand:
    """A client that posts the messages of the protocol itself."""

    http: httpx2.AsyncClient
    meta: dict[str, Any]
    headers: dict[str, str]

    @classmethod
    async def hello(cls, http: httpx2.AsyncClient, era: str) -> "ByHand":
        """One that is ready to call; of the older era, in a session."""
        headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": era}
        known = {"name": "by-hand", "version": "1"}
        if era == "2026-07-28":
            said = {"protocolVersion": era, "clientCapabilities": {}, "clientInfo": known}
            named = {f"io.modelcontextprotocol/{name}": value for name, value in said.items()}
            return cls(http, named, headers | {"Mcp-Method": "tools/call", "Mcp-Name": "kfm_turn_start"})
        params = {"protocolVersion": era, "capabilities": {}, "clientInfo": known}
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        greeted = await http.post("/mcp", json=hello, headers=headers)
        headers["Mcp-Session-Id"] = greeted.headers["Mcp-Session-Id"]
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        (await http.post("/mcp", json=ready, headers=headers)).raise_for_status()
        return cls(http, {}, headers)

    async def start(self, text: str, more: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One start, with more headers."""
        arguments = {"turn": {"input": [{"text": text}]}}
        params = {"name": "kfm_turn_start", "arguments": arguments, "_meta": self.meta}
        message = {"jsonrpc": "2.0", "id": uuid.uuid4().hex, "method": "tools/call", "params": params}
        posted = await self.http.post("/mcp", json=message, headers={**self.headers, **(more or {})})
        # In the older era the answer is the last event of a stream.
        lines = [line.removeprefix("data: ") for line in posted.text.splitlines()]
        return json.loads([line for line in lines if line.startswith("{")][-1])["result"]["structuredContent"]


async def start(proxy: Proxy, era: Any, text: str, **more: Any) -> dict[str, Any] | None:
    """One start by a client of its own, as after a crash; None if its answer was lost."""
    try:
        async with McpClient(f"http://{proxy.address}/mcp", mode=era) as client:
            return await start_by(client, text, **more)
    except Exception:
        return None


async def start_by(client: McpClient, text: str, **more: Any) -> dict[str, Any]:
    """One start."""
    turn = {"turn": {"input": [{"text": text}]}, **more}
    answer = await client.call_tool("kfm_turn_start", turn, read_timeout_seconds=10)
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    return answer.structured_content


async def turns_of(live: Client, text: str) -> list[str]:
    """The ids of the turns that the message started, from the journal."""
    found = [t async for t in live.turns.list()]
    return [t.turn_id for t in found if t.spec is not None and any(p.text == text for p in t.spec.input)]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("cut", Cut)
@pytest.mark.requirement("R4")
async def test_the_same_call_made_again_by_its_client_after_its_answer_was_lost_leads_to_the_same_turn(
    proxy: Proxy, live: Client, cut: Cut, era: str
) -> None:
    text = f"what is 2 + 2? {uuid.uuid4()}"
    # By hand: the official client does not outlive a broken connection, others keep their session over it.
    async with httpx2.AsyncClient(base_url=f"http://{proxy.address}", timeout=10) as http:
        host = await ByHand.hello(http, era)
        proxy.lose(cut, text)
        with contextlib.nullcontext() if cut == Cut.AFTER_RESULT else pytest.raises(httpx2.TransportError):
            await host.start(text)
        assert proxy.cuts == 1
        again = await host.start(text)
    assert await turns_of(live, text) == [again["turn_id"]]
    if cut != Cut.AT_ONCE:
        assert "new idempotency_key" in again["note"]


@pytest.mark.parametrize("cut", Cut)
async def test_without_sessions_the_same_program_started_again_repeats_its_call_too(
    proxy: Proxy, live: Client, cut: Cut
) -> None:
    text = f"what is 6 + 6? {uuid.uuid4()}"
    proxy.lose(cut, text)
    lost = await start(proxy, "2026-07-28", text)
    assert proxy.cuts == 1
    assert (lost is not None) == (cut == Cut.AFTER_RESULT)
    again = await start(proxy, "2026-07-28", text)
    assert again is not None
    assert await turns_of(live, text) == [again["turn_id"]]
    if cut != Cut.AT_ONCE:
        assert "new idempotency_key" in again["note"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (STDIO_2026, STDIO_2026),
        (STDIO_2025, STDIO_2025),
        (STDIO_2026, HTTP_2026),
        (STDIO_2025, HTTP_2025),
        (HTTP_2026, STDIO_2026),
        (HTTP_2025, HTTP_2025),
        (HTTP_2025, HTTP_2026),
        (HTTP_2026, HTTP_2026),
    ],
)
async def test_two_clients_with_the_same_arguments_get_two_turns(
    live_server: LiveServer, live: Client, one: str, other: str
) -> None:
    text = f"what is 7 + 7? {uuid.uuid4()}"
    told: list[dict[str, Any]] = []
    for door, program in ((one, "one"), (other, "other")):
        # Without sessions, clients are told apart by what they call themselves.
        known = Implementation(name=program, version="1")
        async with connected(door, live_server.grpc, live_server.http, client_info=known) as client:
            told.append(await start_by(client, text))
    assert sorted(await turns_of(live, text)) == sorted(answer["turn_id"] for answer in told)
    assert len({answer["turn_id"] for answer in told}) == 2
    assert not any("note" in answer for answer in told)


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
    async with httpx2.AsyncClient(base_url=f"http://{live_server.http}") as http:
        host = await ByHand.hello(http, "2026-07-28")
        ids.add((await host.start(text, {"Idempotency-Key": key}))["turn_id"])
    assert list(ids) == await turns_of(live, text)
