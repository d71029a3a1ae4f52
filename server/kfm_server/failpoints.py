"""Named places where a test may kill the process. They do nothing unless KFM_FAILPOINTS names one."""

import os
import signal

POINTS: set[str] = set()
"""Every name that the imported code declares; the fault matrix is generated from it."""


def declare(name: str) -> str:
    """Register a name, once, at module level; answers the name."""
    POINTS.add(name)
    return name


def parse(text: str) -> dict[str, int]:
    """`name[:nth],name[:nth]` as name -> which passage kills, counted from 1. Raises ValueError."""
    found: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, nth = item.partition(":")
        found[name] = int(nth or 1)
    return found


_armed = parse(os.environ.get("KFM_FAILPOINTS", ""))


def _hit_armed(name: str) -> None:
    left = _armed.get(name)
    if left is None:
        return
    if left > 1:
        _armed[name] = left - 1
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _hit_nothing(name: str) -> None:
    return


hit = _hit_armed if _armed else _hit_nothing
"""Pass a point: SIGKILL to ourselves when it is armed and its turn has come."""
