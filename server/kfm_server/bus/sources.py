"""Where groups read from: the journal itself, or a broker with a channel for each topic."""

from collections.abc import Iterable, Mapping, Sequence

from kfm_server.bus.copies import copied_from, said_session
from kfm_server.ports.broker import Broker
from kfm_server.ports.bus import JOURNAL, Carried
from kfm_server.ports.journal import Journal, Stored


class JournalSource:
    """The journal: one channel, all topics in its order."""

    channels: Sequence[str] = (JOURNAL,)
    may_lose = False

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def heads(self, channel: str) -> Mapping[int, int]:
        """As the port says."""
        return await self._journal.heads()

    async def read(self, channel: str, partition: int, after: int, limit: int) -> Sequence[Stored]:
        """As the port says."""
        return await self._journal.read_along(partition, after, limit)

    async def about(self, stored: Stored) -> tuple[str, str]:
        """As the port says: by the event's turn."""
        row = await self._journal.turn(stored.turn_id) if stored.turn_id else None
        return (row.tenant_id, row.session_id) if row is not None else ("", "")


class BrokerSource:
    """A broker: a channel for each of these topics."""

    may_lose = True

    def __init__(self, broker: Broker, topics: Iterable[str]) -> None:
        self._broker = broker
        self.channels: Sequence[str] = tuple(sorted(topics))

    async def heads(self, channel: str) -> Mapping[int, int]:
        """As the port says."""
        return await self._broker.heads(channel)

    async def read(self, channel: str, partition: int, after: int, limit: int) -> Sequence[Stored]:
        """As the port says."""
        return [
            Carried(
                partition,
                found.offset,
                0,
                "",
                0,
                channel,
                found.payload,
                said_session(found),
                copied_from(found),
                found.published_us,
            )
            for found in await self._broker.read(channel, partition, after, limit)
        ]

    async def about(self, stored: Stored) -> tuple[str, str]:
        """As the port says: by the message's header."""
        return "", stored.session_id if isinstance(stored, Carried) else ""
