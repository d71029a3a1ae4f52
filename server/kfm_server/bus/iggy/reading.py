"""How a partition is read, and what comes of it. Iggy counts offsets from 0, we from 1."""

import contextlib
from collections.abc import Awaitable, Callable

from apache_iggy import Consumer, IggyClient, PollingStrategy, ReceiveMessage

from kfm_server.bus.iggy import wire
from kfm_server.ports.broker import Received

READ_BYTES = 60_000_000
"""What an answer to a read may hold, for its deadline."""
READ_MESSAGES = 1_000
"""What one read brings at most: the server bounds no answer by its size."""


def poll_of(
    stream: str, topic: str, consumer: Consumer, partition: int, after: int, limit: int
) -> Callable[[IggyClient], Awaitable[list[ReceiveMessage]]]:
    """A poll that moves nobody's position: cancelled, it loses nothing."""
    return lambda client: client.poll_messages(
        stream,
        topic,
        consumer=consumer,
        polling_strategy=PollingStrategy.Offset(after),
        count=min(limit, READ_MESSAGES),
        auto_commit=False,
        partition_id=partition,
    )


def received(message: ReceiveMessage, partition: int) -> Received:
    """Headers that are no texts, which others may send, are left out."""
    headers: dict[str, str] = {}
    with contextlib.suppress(ValueError):
        scalars = (found.to_scalar_dict() if (found := message.user_headers()) else {}).items()
        headers = {k: v for k, v in scalars if isinstance(k, str) and isinstance(v, str)}
    return Received(
        partition, message.offset() + 1, message.payload(), message.id(), headers, message.timestamp()
    )


def committed_of(found: wire.Stored | None) -> int:
    """In our offsets. A 0 may stand for the first message, or for the end of a partition that lost all it held."""
    return 0 if found is None or found.stored == 0 else min(found.stored, found.current) + 1
