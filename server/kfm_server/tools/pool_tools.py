"""What the workers of pools say of their tools: kept in the database, and known to every process on it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import structlog
from kfm.catalogue.errors import ToolInvalid, Unavailable
from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server.canonical import parse_json
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.ports.tools import ToolSpec
from kfm_server.tools.registry import ToolRegistry, ToolsInvalid

log = structlog.get_logger(__name__)
LOOK_SECONDS = 1.0
"""Between two looks at what workers of other processes have said."""
Rows = Callable[..., Awaitable[Sequence[Any]]]


class PoolTools:
    """The tools of pools. A tool that was announced stays known: its steps wait for a worker, they do not fail."""

    def __init__(self, rows: Rows, registry: ToolRegistry, changed: Callable[[], None]) -> None:
        """`rows`: the named reads of the database. `changed` is called once the catalogue has."""
        self._rows = rows
        self._registry = registry
        self._changed = changed
        self._versions: dict[str, int] = {}

    async def announce(self, pool: str, tools: Sequence[pb.ToolDefinition]) -> None:
        """A worker tells its tools. Raises ToolInvalid, and then none of them is offered; Unavailable."""
        try:
            changed = self._registry.offer(pool, map(_spec, tools))
        except ToolsInvalid as error:
            raise ToolInvalid(str(error), metadata={"pool": pool}) from None
        if changed:
            self._changed()
        told = {tool.name: tool.SerializeToString(deterministic=True) for tool in tools}
        try:
            if told:
                await self._rows("announce_tools", pool, list(told), list(told.values()))
        except JournalUnavailable:
            raise Unavailable(retry_after_ms=1000) from None

    async def load(self) -> None:
        """Take in what was told to other processes since. Raises JournalUnavailable."""
        rows = await self._rows("pool_tools", list(self._versions.values()))
        changed = False
        for pool, found in groupby(rows, key=lambda row: row["pool"]):
            found = list(found)
            try:
                changed |= self._registry.offer(pool, _specs(row["definition"] for row in found))
            except ToolsInvalid as error:
                log.warning("pool_tools_refused", pool=pool, error=str(error))
            self._versions |= {row["name"]: row["version"] for row in found}
        if changed:
            self._changed()

    async def run(self) -> None:
        """Go on loading until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.load()
            except JournalUnavailable as away:
                log.debug("pool_tools_wait", error=str(away))


def _specs(definitions: Iterable[bytes]) -> list[ToolSpec]:
    return [_spec(pb.ToolDefinition.FromString(definition)) for definition in definitions]


def _spec(tool: pb.ToolDefinition) -> ToolSpec:
    """Raises ToolsInvalid for a schema that is no JSON object."""
    try:
        schema = parse_json(tool.input_schema_json)
    except ValueError as error:
        raise ToolsInvalid(f"{tool.name}: its schema is {error}") from None
    if not isinstance(schema, dict):
        raise ToolsInvalid(f"{tool.name}: its schema is no JSON object")
    return ToolSpec(tool.name, tool.description, schema, tool.effect, tool.compensation_tool)
