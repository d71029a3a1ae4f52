"""The sandboxes of this process: one of each tier, and what was found when somebody asked whether this host can confine."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from kfm_server.ports.sandbox import (
    Confinement,
    Grant,
    MiB,
    Sandbox,
    SandboxRefused,
    Tier,
    require,
)
from kfm_server.sandbox.interpreter import InterpreterSandbox
from kfm_server.sandbox.probing import probe
from kfm_server.sandbox.processes import ProcessSandbox
from kfm_server.settings import CodeSettings
from kfm_server.tools.code import Code
from kfm_server.tools.registry import ToolRegistry

LOOK_AGAIN_SECONDS: Final = 60.0
"""How long a host that cannot confine in some tier counts as such without another look."""


class Sandboxes:
    """Nothing of them is started, and nothing looked at, before it is asked for."""

    def __init__(self, process: ProcessSandbox, interpreter: InterpreterSandbox) -> None:
        """Of open ones; `open_sandboxes` makes them."""
        self.process = process
        self.interpreter = interpreter
        self._looking = asyncio.Lock()
        self._found: tuple[Confinement, ...] = ()
        self._good_until = 0.0

    async def look(self) -> tuple[Confinement, ...]:
        """What this host can confine. The first look takes some tenths of a second; what it can, it can for good."""
        async with self._looking:
            if not self._found or time.monotonic() > self._good_until:
                self._found = await probe()
                able = all(tier.able for tier in self._found)
                self._good_until = float("inf") if able else time.monotonic() + LOOK_AGAIN_SECONDS
            return self._found

    async def best_of(self, *tiers: Tier) -> Sandbox:
        """That of the first tier that this host can confine. Raises SandboxRefused with the reasons if it can none."""
        found = await self.look()
        refused: list[str] = []
        for tier in tiers:
            try:
                require(tier, found)
            except SandboxRefused as error:
                refused.append(str(error))
            else:
                return self.process if tier == "process" else self.interpreter
        raise SandboxRefused(" ".join(refused))

    async def why_not(self, tier: Tier) -> str:
        """Why this host cannot confine code in the tier; empty if it can."""
        return _why_not(tier, await self.look())


async def open_sandboxes(stack: AsyncExitStack) -> Sandboxes:
    """Both tiers, closed with the stack."""
    process = await stack.enter_async_context(ProcessSandbox.open())
    return Sandboxes(process, await stack.enter_async_context(InterpreterSandbox.open()))


def code_tools(settings: CodeSettings) -> Sequence[Code]:
    """The tool `code`, unless it is off; `bind_code` gives it the sandbox."""
    if settings.sandbox == "off":
        return ()
    grant = Grant(
        cpu_seconds=settings.seconds
        + 1,  # one clock for a call that has one process: what is reached is wall_seconds
        wall_seconds=settings.seconds,
        memory_bytes=settings.memory_mib * MiB,
        output_bytes=settings.output_kib * 1024,
    )
    return (Code(settings.sandbox, grant),)


def bind_code(tools: ToolRegistry, sandboxes: Sandboxes) -> None:
    """Let the tool `code` run what it is given, in the tier that is set or the best that this host can confine."""
    tool = tools.tools.get("code")
    if isinstance(tool, Code):
        tiers: tuple[Tier, ...] = ("process", "interpreter") if tool.wanted == "auto" else (tool.wanted,)
        tool.bind(lambda: sandboxes.best_of(*tiers))


def _why_not(tier: Tier, found: Sequence[Confinement]) -> str:
    return next((seen.reason for seen in found if seen.tier == tier and not seen.able), "")
