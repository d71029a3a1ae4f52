"""`kfm mcp`: the bridge over standard input and output, for one host on this machine."""

import anyio
from mcp.server.stdio import stdio_server

from kfm_mcp.bridge import Bridge
from kfm_mcp.server import build_server


async def serve(bridge: Bridge) -> None:
    """Serve until standard input closes. Standard output carries the protocol only: what else is printed goes to standard error."""
    server = build_server(bridge)
    try:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
    finally:
        with anyio.CancelScope(shield=True):
            await bridge.gateway.close()
