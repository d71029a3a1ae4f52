"""`kfm.personalities`: how agents plan, with which models and tools."""

from xenocomm._gen.types import Personality
from xenocomm.transport import Transport


class Personalities:
    """Personalities that a turn may name."""

    def __init__(self, transport: Transport) -> None:
        """Made by Client."""
        self._transport = transport

    async def list(self) -> list[Personality]:
        """All, by name."""
        answer = await self._transport.call("PersonalityService.ListPersonalities", {})
        return [Personality.from_pb(p) for p in answer.personalities]
