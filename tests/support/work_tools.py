"""Tools of worker pools: the ledger's, whose calls are written to a file, and one that tells how far it is."""

from dataclasses import dataclass
from typing import Any

from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import Tool, ToolCall, ToolSpec
from kfm_server.tools.calculator import Calculator

from tests.support.ledger import TOOLS as LEDGER
from tests.support.ledger import hold, write


@dataclass(frozen=True)
class Teller:
    """Writes to the ledger at its start, and tells `times` pieces of progress once its gate is open."""

    @property
    def spec(self) -> ToolSpec:
        """What it promises."""
        schema = {"type": "object", "properties": {"times": {"type": "integer"}, "hold": {"type": "string"}}}
        return ToolSpec("teller", "tells how far it is", schema, types.EFFECT_CONTRACT_PURE)

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Tell, and say how often."""
        write(tool="teller", key=call.key, attempt=call.attempt, epoch=call.epoch, effect=False)
        await hold(arguments["hold"])
        for number in range(arguments.get("times", 0)):
            call.progress(f"piece {number}")
        return {"text": "told"}


TOOLS: list[Tool] = [
    *(tool for tool in LEDGER if tool.effect != types.EFFECT_CONTRACT_TRANSACTIONAL),
    Teller(),
]
TAKEN: list[Tool] = [Calculator()]
"""A name that the server has itself."""
