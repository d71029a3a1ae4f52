"""What is told of an MCP server whose tools are used; read by settings, used by tools/mcp."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from kfm_server.secret import Secret

McpEffect = Literal["at_most_once", "idempotent", "pure"]
SERVER_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""What an MCP server may be called: its tools are NAME_tool."""


def _nothing() -> Mapping[str, Secret]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class McpServerSpec:
    """`[mcp_servers.NAME]`: a program that speaks MCP over its standard streams, or an address that does over HTTP.

    Either `command` or `url` is set. Durations in seconds.
    """

    name: str
    command: str = ""
    """the program; it gets `args`, and of the environment HOME, LOGNAME, PATH, SHELL, TERM and USER beside `env`"""
    args: tuple[str, ...] = ()
    env: Mapping[str, Secret] = field(default_factory=_nothing)
    url: str = ""
    """of Streamable HTTP"""
    headers: Mapping[str, Secret] = field(default_factory=_nothing)
    tools: tuple[str, ...] = ()
    """those of its tools that are used, by its own names; empty: all of them"""
    effect: McpEffect = "at_most_once"
    """the effect contract of its tools"""
    trust_read_only: bool = False
    """a tool that the server calls read-only (readOnlyHint) is PURE"""
    deadline: float = 30.0
    """longest wait for an answer; the step's own timeout holds, too"""
    breaker_failures: int = 5
    """calls in a row that were not answered in time, or at all, after which it is left alone"""
    breaker_seconds: float = 10.0
    """for how long, at first; twice as long after each probe that fails"""

    @property
    def source(self) -> str:
        """How it is called in what people read."""
        return f"the MCP server {self.name}"
