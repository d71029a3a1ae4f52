"""How the tools of `ops` reach the API of this very process: as any client does, with the server's own token."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from google.protobuf import json_format
from xenocomm._gen.errors import XenocommError
from xenocomm._gen.pool import POOL
from xenocomm.connection import Connection
from xenocomm.transport import Options, Transport

from kfm_server.doors.binding import join_address, split_address
from kfm_server.ports.tools import ToolError
from kfm_server.tools.ops import bind_ops
from kfm_server.tools.registry import ToolRegistry

CALL_SECONDS = 10.0
_RETRIES = 2


def open_ops(stack: AsyncExitStack, tools: ToolRegistry, bound: str, token: str) -> None:
    """Give the tools of `ops` their way to the door at `bound`. Nothing is dialled before the first call."""
    host, port = split_address(bound)
    own = join_address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)
    transport = Transport(Connection(own, token), Options(CALL_SECONDS, _RETRIES))
    stack.push_async_callback(transport.close)

    async def ask(rpc: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        try:
            message = await transport.call(rpc, fields)
        except XenocommError as error:
            raise ToolError(f"{rpc}: {error}", retryable=error.retryable) from None
        return json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=POOL)

    bind_ops(tools.tools, ask)
