"""The newest events of partitions, as this process appended them: who reads along needs no statement for them."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice

from kfm_server.ports.journal import Entry, Stored

MOST_ROWS = 256
MOST_BYTES = 16 << 20
"""Of envelopes, in all partitions together."""


class Tail:
    """What was committed here last. It has no gaps: what does not follow on what it holds begins it anew."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._rows: dict[int, deque[Stored]] = {}
        """The partition that was appended to last is the last."""
        self._bytes = 0

    def add(self, entries: Sequence[Entry], heads: Mapping[int, int]) -> None:
        """These were committed, in this order; `heads`: the last offsets of their partitions just after that."""
        records = [(entry, record) for entry in entries for record in entry.records]
        offsets = {entry.partition: heads[entry.partition] for entry in entries}
        for entry, _ in records:
            offsets[entry.partition] -= 1
        for entry, record in records:
            partition = entry.partition
            offsets[partition] += 1
            rows = self._rows.pop(partition, deque[Stored]())
            if rows and rows[-1].offset != offsets[partition] - 1:
                self._drop(rows, 0)
            rows.append(
                Stored(
                    partition, offsets[partition], entry.epoch,
                    record.turn_id, record.sequence, record.topic, record.envelope,
                )
            )  # fmt: skip
            self._bytes += len(record.envelope)
            self._drop(rows, MOST_ROWS)
            self._rows[partition] = rows
        while self._bytes > self._most_bytes:
            self._drop(self._rows.pop(next(iter(self._rows))), 0)

    def read(self, partition: int, after: int, limit: int) -> Sequence[Stored]:
        """Events after this offset; none unless the very next one is here."""
        rows = self._rows.get(partition)
        if not rows or not rows[0].offset <= after + 1 <= rows[-1].offset:
            return ()
        start = after + 1 - rows[0].offset
        return list(islice(rows, start, start + limit))

    def _drop(self, rows: deque[Stored], most: int) -> None:
        while len(rows) > most:
            self._bytes -= len(rows.popleft().envelope)
