"""When the reader of a stream comes back to it, and when it gives up."""

import time

from xenocomm._gen.errors import XenocommError
from xenocomm.connection import Line
from xenocomm.failures import ConnectFailed
from xenocomm.transport import Rounds, Transport

_GIVE_UP_S = 120.0
_QUIET_S = 30.0
"""A stream that stood for longer was contact, though it told nothing: turns can wait for days."""


class Reconnecting:
    """The pauses between the streams of one reader, longer with each that told nothing."""

    def __init__(self, transport: Transport) -> None:
        """Of a reader on this transport."""
        self._rounds = Rounds(transport)
        self._opened = 0.0
        self._lost_since: float | None = None

    def opening(self) -> None:
        """A stream is opened now."""
        self._opened = time.monotonic()

    def heard(self) -> None:
        """The stream told something."""
        self._lost_since = None
        self._rounds.heard()

    def pause_s(self, line: Line, failure: XenocommError) -> float:
        """Seconds until the next stream, after one on this line that ended by this failure.

        Raises it if it is not transient, if for two minutes nothing was heard, or, before any server was reached, after a
        few attempts.
        """
        now = time.monotonic()
        if now - self._opened > _QUIET_S and not isinstance(failure, ConnectFailed):
            self.heard()
        self._lost_since = self._lost_since or now
        pause = self._rounds.pause_s(line, failure)
        if now - self._lost_since > _GIVE_UP_S:
            raise failure
        return pause
