"""PersonalityService: which personalities a turn may name."""

from collections.abc import Callable, Iterable, Mapping

from kfm.catalogue.errors import PersonalityNotFound
from kfm.personality.v1 import personality_service_pb2

from kfm_server.doors.grpc.interceptor import Call
from kfm_server.models import EVERY_TOOL, Personality
from kfm_server.ports.packs import NO_PACKS, Packs, PackState

_pb = personality_service_pb2
Configured = Callable[[], tuple[Mapping[str, Personality], str]]
"""The personalities by name, and the name of the default one, as they are configured at this moment."""


class PersonalityService:
    """The bodies of kfm.personality.v1.PersonalityService, by the names of its RPCs."""

    SERVICE = "kfm.personality.v1.PersonalityService"

    def __init__(
        self, configured: Configured, tools: Callable[[], Iterable[str]], packs: Packs = NO_PACKS
    ) -> None:
        """`tools`: the names of all tools, which one that names none may call."""
        self._configured = configured
        self._tools = tools
        self._packs = packs

    async def ListPersonalities(
        self, call: Call, request: _pb.ListPersonalitiesRequest
    ) -> _pb.ListPersonalitiesResponse:
        """All, by name."""
        personalities, default = self._configured()
        return _pb.ListPersonalitiesResponse(
            personalities=[
                self._message(name, personality, default)
                for name, personality in sorted(personalities.items())
            ]
        )

    async def GetPersonality(
        self, call: Call, request: _pb.GetPersonalityRequest
    ) -> _pb.GetPersonalityResponse:
        """One, with what it is told and its pack. PersonalityNotFound."""
        personalities, default = self._configured()
        found = personalities.get(request.name)
        if found is None:
            raise PersonalityNotFound(metadata={"personality": request.name})
        pack = next((p for p in self._packs.states() if found.pack and p.name == request.name), None)
        return _pb.GetPersonalityResponse(
            personality=self._message(request.name, found, default),
            instructions=found.instructions,
            pack=None if pack is None else _pack(pack),
        )

    async def ListPacks(self, call: Call, request: _pb.ListPacksRequest) -> _pb.ListPacksResponse:
        """All, by name."""
        return _pb.ListPacksResponse(packs=[_pack(state) for state in self._packs.states()])

    def _message(self, name: str, personality: Personality, default: str) -> _pb.Personality:
        named = personality.tools or ()
        if personality.tools is None or EVERY_TOOL in named:
            named = sorted({*self._tools(), *named} - {EVERY_TOOL})
        return _pb.Personality(
            name=name,
            description=personality.description,
            planner=personality.planner,
            models=personality.models,
            tools=[*named, *(tool.name for tool in personality.own_tools)],
            digest=personality.digest,
            is_default=name == default,
        )


def _pack(state: PackState) -> _pb.Pack:
    return _pb.Pack(
        name=state.name,
        version=state.version,
        digest=state.digest,
        tools=state.tools,
        skills=state.skills,
        signed_by=state.signed_by,
        problems=state.problems,
    )
