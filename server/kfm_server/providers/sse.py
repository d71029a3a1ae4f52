"""Server-sent events: bytes as they arrive -> the data of each event."""

from typing import Final

from kfm_server.providers import errors

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
"""Longest line of a stream."""


class EventReader:
    """Cuts a stream into events. Only `data` matters here; comments (keep-alives) and other fields are skipped."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._held = 0
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece completes. Raises ProviderError over MAX_LINE_BYTES."""
        if b"\n" not in piece:
            self._rest.append(piece)
            self._held += len(piece)
            if self._held > MAX_LINE_BYTES:
                raise errors.over_bound("line", "max_line_bytes", MAX_LINE_BYTES)
            return []
        if self._rest:
            piece = b"".join((*self._rest, piece))
        lines = piece.split(b"\n")
        last = lines.pop()
        self._rest, self._held = ([last], len(last)) if last else ([], 0)
        events: list[bytes] = []
        data = self._data
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if not line:
                if data:
                    events.append(data[0] if len(data) == 1 else b"\n".join(data))
                    data.clear()
            elif line.startswith(b"data:"):
                data.append(line[6:] if line[5:6] == b" " else line[5:])
        return events

    def end(self) -> list[bytes]:
        """What the stream ended on without the empty line that ends an event: some servers leave it out."""
        return [*self.feed(b"\n"), *self.feed(b"\n")]
