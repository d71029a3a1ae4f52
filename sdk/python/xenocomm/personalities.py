"""`kfm.personalities`: how agents plan, with which models and tools."""

from collections.abc import Sequence

from xenocomm._gen.types import GetPersonalityResponse, Pack, Personality
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

    async def get(self, name: str) -> GetPersonalityResponse:
        """One, with what it is told and its pack. Raises PersonalityNotFound."""
        answer = await self._transport.call("PersonalityService.GetPersonality", {"name": name})
        return GetPersonalityResponse.from_pb(answer)

    async def packs(self) -> Sequence[Pack]:
        """The packs of the server's directory, also those that cannot be used, and why."""
        answer = await self._transport.call("PersonalityService.ListPacks", {})
        return [Pack.from_pb(p) for p in answer.packs]
