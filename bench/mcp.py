"""What MCP costs: the same calls through the SDK, and through the bridge over stdio and over HTTP, in one run.

Usage: python -m bench.mcp [--calls N] [--rounds N]

`get` reads a turn that has ended; `turn` starts one and waits for its end (two calls). One caller; rounds visit every
way before they go on. Prints a JSON line for each way and call, and one with what a call costs beyond the SDK's.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from mcp.client.client import Client as McpClient
from mcp.client.stdio import StdioServerParameters, stdio_client
from xenocomm import Client

from bench.systems import Server, scratch

Call = Callable[[], Awaitable[object]]
WARM = 20
MESSAGE = "what is 2 + 2?"
SDK = "sdk"


def over_sdk(client: Client, turn_id: str) -> dict[str, Call]:
    """The calls as a Python program makes them."""

    async def turn() -> None:
        handle = await client.turns.start(MESSAGE)
        await handle.result()

    return {"get": lambda: client.turns.get(turn_id), "turn": turn}


def over_mcp(client: McpClient, turn_id: str) -> dict[str, Call]:
    """The same calls as a host makes them."""

    async def call(tool: str, **arguments: Any) -> Any:
        answer = await client.call_tool(tool, arguments)
        assert not answer.is_error, answer.content
        return answer.structured_content

    async def turn() -> None:
        # A key of its own: an identical call would answer with the same turn.
        begun = await call(
            "kfm_turn_start", turn={"input": [{"text": MESSAGE}]}, idempotency_key=uuid.uuid4().hex
        )
        await call("kfm_turn_wait", turn_id=begun["turn_id"])

    return {"get": lambda: call("kfm_turn_get", turn_id=turn_id), "turn": turn}


@contextlib.asynccontextmanager
async def ways(grpc: str, http: str) -> AsyncGenerator[dict[str, dict[str, Call]]]:
    """Every way to call, by name, for a turn that has ended."""
    environment = {"PATH": os.environ["PATH"], "KFM_ENDPOINT": grpc}
    bridge = StdioServerParameters(
        command=sys.executable, args=["-m", "kfm_server.doors.cli.main", "mcp"], env=environment
    )
    async with contextlib.AsyncExitStack() as stack:
        sdk = await stack.enter_async_context(Client(grpc))
        turn_id = (await sdk.turns.run(MESSAGE)).turn_id
        found = {SDK: over_sdk(sdk, turn_id)}
        for era, mode in (("2026", "2026-07-28"), ("2025", "legacy")):
            how: Any = mode
            for name, target in (("stdio", stdio_client(bridge)), ("http", f"http://{http}/mcp")):
                client = await stack.enter_async_context(McpClient(target, mode=how))
                found[f"mcp-{name}-{era}"] = over_mcp(client, turn_id)
        yield found


async def measure(call: Call, calls: int) -> list[float]:
    """Milliseconds of each call."""
    taken: list[float] = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


async def run(grpc: str, http: str, calls: int, rounds: int) -> None:
    """All ways, interleaved."""
    taken: dict[tuple[str, str], list[float]] = {}
    async with ways(grpc, http) as found:
        for way in found.values():
            for call in way.values():
                await measure(call, WARM)
        for _ in range(rounds):
            for name, way in found.items():
                for what, call in way.items():
                    taken.setdefault((what, name), []).extend(await measure(call, calls))
    middle = {key: statistics.median(times) for key, times in taken.items()}
    for (what, name), times in taken.items():
        p99 = statistics.quantiles(times, n=100)[98]
        row = {"name": name, "call": what, "p50_ms": round(middle[what, name], 3), "p99_ms": round(p99, 3)}
        print(json.dumps(row | {"calls": len(times)}))
    for what, name in taken:
        if name != SDK:
            beyond = middle[what, name] - middle[what, SDK]
            print(json.dumps({"overhead": name, "call": what, "p50_ms": round(beyond, 3)}))


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=100, help="calls of each kind in a round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with scratch() as folder:
        server = Server(folder)
        try:
            asyncio.run(run(server.grpc, server.endpoints["http"], given.calls, given.rounds))
        finally:
            server.close()


if __name__ == "__main__":
    main()
