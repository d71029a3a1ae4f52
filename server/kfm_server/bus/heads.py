"""The heads of all of a broker's topics, for many who ask at one time: after a takeover each partition's relay does."""

import asyncio
from collections.abc import Iterable, Mapping

from kfm_server.ports.broker import Broker


class Heads:
    """One look at a time. Whoever asks while one is under way shares the next: no answer is older than its question."""

    def __init__(self, broker: Broker, topics: Iterable[str]) -> None:
        self._broker = broker
        self._topics = tuple(topics)
        self._looking = asyncio.Lock()
        self._begun = self._done = 0
        self._found: Mapping[str, Mapping[int, int]] = {}

    async def look(self) -> Mapping[str, Mapping[int, int]]:
        """By topic and partition. Raises as Broker.heads."""
        asked = self._begun
        async with self._looking:
            if self._done <= asked:
                self._begun += 1
                self._found = {topic: await self._broker.heads(topic) for topic in self._topics}
                self._done = self._begun
            return self._found
