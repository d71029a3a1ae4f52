"""PersonalityService: which personalities a turn may name."""

from collections.abc import Callable, Iterable, Mapping

from kfm.personality.v1 import personality_service_pb2

from kfm_server.doors.grpc.interceptor import Call
from kfm_server.models import Personality

_pb = personality_service_pb2
Configured = Callable[[], tuple[Mapping[str, Personality], str]]
"""The personalities by name, and the name of the default one, as they are configured at this moment."""


class PersonalityService:
    """The bodies of kfm.personality.v1.PersonalityService, by the names of its RPCs."""

    SERVICE = "kfm.personality.v1.PersonalityService"

    def __init__(self, configured: Configured, tools: Callable[[], Iterable[str]]) -> None:
        """`tools`: the names of all tools, which one that names none may call."""
        self._configured = configured
        self._tools = tools

    async def ListPersonalities(
        self, call: Call, request: _pb.ListPersonalitiesRequest
    ) -> _pb.ListPersonalitiesResponse:
        """All, by name."""
        personalities, default = self._configured()
        every_tool = sorted(self._tools())
        return _pb.ListPersonalitiesResponse(
            personalities=[
                _pb.Personality(
                    name=name,
                    description=personality.description,
                    planner=personality.planner,
                    models=personality.models,
                    tools=every_tool if personality.tools is None else personality.tools,
                    digest=personality.digest,
                    is_default=name == default,
                )
                for name, personality in sorted(personalities.items())
            ]
        )
