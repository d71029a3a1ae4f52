"""The bridge at the server's HTTP door: what a request finds while the server stops."""

import asyncio

import httpx2
import pytest
from kfm_server.doors.http.mcp import McpMount

pytestmark = pytest.mark.requirement("E4")


@pytest.mark.parametrize("when", ["before", "while it is loaded"])
async def test_a_stopped_server_says_so_and_not_that_an_extra_is_missing(when: str) -> None:
    mount = McpMount(address="127.0.0.1:0", grpc=lambda: "127.0.0.1:1", token="")
    transport = httpx2.ASGITransport(app=mount)
    async with asyncio.timeout(30), httpx2.AsyncClient(transport=transport, base_url="http://door") as http:
        if when == "before":
            await mount.stop()
            answer = await http.post("/mcp", json={})
        else:
            answer, _ = await asyncio.gather(http.post("/mcp", json={}), mount.stop())
    assert answer.status_code == 503
    assert answer.json()["error"]["data"] == {"reason": "REASON_DRAINING"}
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"mcp"})
