"""Health by part, in the standard protocol."""

from grpc_health.v1 import health, health_pb2

PARTS: tuple[str, ...] = ("", "kfm.turn.v1.TurnService", "kfm.admin.v1.AdminService", "journal")


class Health:
    """What each part's health is. Everything starts as NOT_SERVING; whoever knows better says so with `set`."""

    def __init__(self) -> None:
        """All of PARTS not serving."""
        self._parts = dict.fromkeys(PARTS, False)
        self.servicer = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]
        self._stopping = False

    async def start(self) -> None:
        """Publish the first state of every part."""
        for part, serving in self._parts.items():
            await self._tell(part, serving)

    async def set(self, part: str, serving: bool) -> None:
        """Say that a part serves, or that it does not; KeyError for a part that is not in PARTS. Ignored after `stop`."""
        known = self._parts[part]
        if self._stopping or known == serving:
            return
        self._parts[part] = serving
        await self._tell(part, serving)

    async def set_all(self, serving: bool) -> None:
        """Say the same of every part."""
        for part in PARTS:
            await self.set(part, serving)

    def serving(self, part: str = "") -> bool:
        """Whether a part serves; the empty one is the server as a whole."""
        return self._parts[part]

    def parts(self) -> dict[str, bool]:
        """Every part and whether it serves."""
        return dict(self._parts)

    async def stop(self) -> None:
        """Every part is NOT_SERVING from here on."""
        self._stopping = True
        self._parts = dict.fromkeys(PARTS, False)
        await self.servicer.enter_graceful_shutdown()

    async def _tell(self, part: str, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.ServingStatus
        await self.servicer.set(part, status.SERVING if serving else status.NOT_SERVING)
