"""Publishing to one partition: whoever comes while a send is under way is taken along with the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from kfm_server.ports.broker import BrokerUnavailable, Message, MessageRefused

BATCH_MESSAGES = 1_000
BATCH_BYTES = 1_000_000
"""Of payloads in one send, unless a single message is larger. A durable send costs the same for one and for many."""

Send = Callable[[Sequence[Message]], Awaitable[None]]


class _Entry:
    """What one caller publishes, and how it went."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.done = False
        self.error: Exception | None = None


class Lane:
    """Order within a partition: messages are sent in the order in which `publish` was called.

    Callers carry the work themselves: one sends for all that wait. If it is cancelled, what it took along is sent
    again by the next, under the same ids.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[_Entry] = deque()
        self._sending = asyncio.Lock()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Returns when all were appended. Raises what `send` raises for them."""
        mine = _Entry(messages)
        self._waiting.append(mine)
        try:
            async with self._sending:
                while not mine.done:
                    await self._send_some()
        except BaseException:
            if not mine.done and mine in self._waiting:
                self._waiting.remove(mine)
            raise
        if mine.error:
            raise mine.error

    async def _send_some(self) -> None:
        batch = self._take()
        try:
            error = await self._try([m for entry in batch for m in entry.messages])
            if isinstance(error, MessageRefused) and len(batch) > 1:  # only who offends is told
                for entry in batch:
                    entry.error = await self._try(entry.messages)
                    entry.done = True
        except BaseException:
            self._waiting.extendleft(entry for entry in reversed(batch) if not entry.done)
            raise
        for entry in batch:
            if not entry.done:
                entry.error, entry.done = error, True

    async def _try(self, messages: Sequence[Message]) -> Exception | None:
        try:
            for part in parts_of(messages):
                await self._send(part)
        except (BrokerUnavailable, MessageRefused) as error:
            return error
        return None

    def _take(self) -> list[_Entry]:
        batch: list[_Entry] = []
        count = size = 0
        while self._waiting:
            entry = self._waiting[0]
            count += len(entry.messages)
            size += sum(len(m.payload) for m in entry.messages)
            if batch and (count > BATCH_MESSAGES or size > BATCH_BYTES):
                break
            batch.append(self._waiting.popleft())
        return batch


def parts_of(messages: Sequence[Message]) -> list[Sequence[Message]]:
    """In order, each within the bounds of a batch or a single message."""
    parts: list[Sequence[Message]] = []
    start = size = 0
    for index, message in enumerate(messages):
        if index > start and (size + len(message.payload) > BATCH_BYTES or index - start == BATCH_MESSAGES):
            parts.append(messages[start:index])
            start, size = index, 0
        size += len(message.payload)
    return [*parts, messages[start:]] if messages else []
