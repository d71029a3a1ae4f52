"""What an error from the database means for what was asked of it."""

from enum import Enum

from asyncpg import exceptions as pg


class Fault(Enum):
    """LOST: the connection is gone, the outcome open. BUSY: rolled back, may pass. ROW: it will never pass."""

    LOST = "lost"
    BUSY = "busy"
    ROW = "row"


_LOST_STATES = ("08", "57P01", "57P02", "57P03", "57P05")
_BUSY_STATES = ("25006", "40", "53", "55", "57", "58", "F0", "XX")
_LOST_TYPES = (OSError, TimeoutError, EOFError, pg.InterfaceError, pg.InternalClientError)


def fault_of(error: Exception) -> Fault:
    """Sort an error raised by asyncpg or the network."""
    state = getattr(error, "sqlstate", None)
    # Before the test for InterfaceError: asyncpg's complaint about an argument is one too.
    if isinstance(error, pg.DataError | ValueError):
        return Fault.ROW
    if isinstance(state, str):
        if state.startswith(_LOST_STATES):
            return Fault.LOST
        return Fault.BUSY if state.startswith(_BUSY_STATES) else Fault.ROW
    return Fault.LOST if isinstance(error, _LOST_TYPES) else Fault.ROW
