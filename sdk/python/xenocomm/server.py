"""`kfm.server`: what the server is, and its configuration."""

import warnings

from xenocomm._gen.types import (
    SCHEMA_RELEASE,
    GetConfigResponse,
    GetServerInfoResponse,
    ListWorkersResponse,
    ReloadConfigResponse,
)
from xenocomm.transport import Transport

KNOWN_CAPABILITIES = frozenset(
    {
        "config.reload",
        "events.watch",
        "mcp",
        "models.gateway",
        "models.litellm",
        "models.openai",
        "models.scripted",
        "personalities",
        "planner.given",
        "planner.hybrid",
        "planner.plan",
        "planner.react",
        "planner.rules",
        "role.api",
        "role.runtime",
        "role.worker",
        "sandbox.interpreter",
        "sandbox.process",
        "sessions",
        "turns.fork",
        "turns.output_schema",
        "turns.settle",
        "workers",
    }
)
"""Names of `GetServerInfoResponse.capabilities` that this release knows."""
_OF_MCP_SERVERS = ("mcp.", "mcp-away.")
"""Followed by the name of an MCP server that the configuration names: whether it is reached."""


class VersionSkew(UserWarning):
    """Client and server are of different releases: something may be missing on one side."""


class Server:
    """The server itself. For operators."""

    def __init__(self, transport: Transport) -> None:
        """Made by Client."""
        self._transport = transport

    async def info(self) -> GetServerInfoResponse:
        """Which release it speaks and what it can do. Warns with VersionSkew about what differs from this client."""
        answer = await self._transport.call("AdminService.GetServerInfo", {})
        info = GetServerInfoResponse.from_pb(answer)
        for text in skew(info):
            warnings.warn(text, VersionSkew, stacklevel=2)
        return info

    async def config(self) -> GetConfigResponse:
        """The settings in force, each with where it comes from; secrets are left out."""
        return GetConfigResponse.from_pb(await self._transport.call("AdminService.GetConfig", {}))

    async def reload(self) -> ReloadConfigResponse:
        """Read the configuration again. ConfigInvalid: it cannot be used, and the one before stays."""
        return ReloadConfigResponse.from_pb(await self._transport.call("AdminService.ReloadConfig", {}))

    async def workers(self, pool: str = "") -> ListWorkersResponse:
        """Who is connected to this process to perform steps, and the pools; only those of `pool` when it is given."""
        answer = await self._transport.call("AdminService.ListWorkers", {"pool": pool})
        return ListWorkersResponse.from_pb(answer)


def skew(info: GetServerInfoResponse) -> list[str]:
    """What a server and this client do not both know, as sentences."""
    found: list[str] = []
    theirs, ours = _release(info.schema_release), _release(SCHEMA_RELEASE)
    if theirs < ours:
        found.append(
            f"the server speaks schema {info.schema_release or 'of no release'}, older than this client's"
            f" {SCHEMA_RELEASE}: what came since is refused as unimplemented or ignored"
        )
    elif theirs > ours:
        found.append(
            f"the server speaks schema {info.schema_release}, newer than this client's {SCHEMA_RELEASE}:"
            " new fields and events are not shown"
        )
    unknown = sorted(
        name for name in {*info.capabilities} - KNOWN_CAPABILITIES if not name.startswith(_OF_MCP_SERVERS)
    )
    if unknown:
        found.append(f"the server can do what this client does not know: {', '.join(unknown)}")
    return found


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
