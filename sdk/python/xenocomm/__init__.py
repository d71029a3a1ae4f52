"""Xenocomm: the Python SDK of KFM Agent Shell.

    async with Client() as kfm:
        turn = await kfm.turns.start("what is 2 + 2?")
        async for text in turn.text():
            print(text)

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xenocomm._gen import errors, types
    from xenocomm._gen.errors import XenocommError
    from xenocomm._gen.types import (
        BusyMode,
        Envelope,
        Limits,
        Message,
        Outcome,
        Part,
        Personality,
        Role,
        Session,
        SettleAs,
        Start,
        Turn,
        TurnState,
        TurnUpdate,
        Usage,
    )
    from xenocomm.client import Client
    from xenocomm.deltas import Discard, Missed, Piece
    from xenocomm.events import EventWatch
    from xenocomm.failures import (
        ConnectFailed,
        ResultTimeout,
        TurnCancelled,
        TurnFailed,
        TurnNeedsPerson,
        TurnTimedOut,
        TurnUnsuccessful,
    )
    from xenocomm.handle import TurnHandle
    from xenocomm.output import OutputMismatch
    from xenocomm.paging import Listing, Page
    from xenocomm.raw import Raw
    from xenocomm.server import VersionSkew
    from xenocomm.sync import SyncClient

_HOMES = {
    "_gen.errors": ("XenocommError",),
    "_gen.types": (
        "BusyMode",
        "Envelope",
        "Limits",
        "Message",
        "Outcome",
        "Part",
        "Personality",
        "Role",
        "Session",
        "SettleAs",
        "Start",
        "Turn",
        "TurnState",
        "TurnUpdate",
        "Usage",
    ),
    "client": ("Client",),
    "deltas": (
        "Discard",
        "Missed",
        "Piece",
    ),
    "events": ("EventWatch",),
    "failures": (
        "ConnectFailed",
        "ResultTimeout",
        "TurnCancelled",
        "TurnFailed",
        "TurnNeedsPerson",
        "TurnTimedOut",
        "TurnUnsuccessful",
    ),
    "handle": ("TurnHandle",),
    "output": ("OutputMismatch",),
    "paging": (
        "Listing",
        "Page",
    ),
    "raw": ("Raw",),
    "server": ("VersionSkew",),
    "sync": ("SyncClient",),
}
"""Where each public name is at home."""
_HOME = {name: f"xenocomm.{home}" for home, names in _HOMES.items() for name in names}

__all__ = [
    "BusyMode",
    "Client",
    "ConnectFailed",
    "Discard",
    "Envelope",
    "EventWatch",
    "Limits",
    "Listing",
    "Message",
    "Missed",
    "Outcome",
    "OutputMismatch",
    "Page",
    "Part",
    "Personality",
    "Piece",
    "Raw",
    "ResultTimeout",
    "Role",
    "Session",
    "SettleAs",
    "Start",
    "SyncClient",
    "Turn",
    "TurnCancelled",
    "TurnFailed",
    "TurnHandle",
    "TurnNeedsPerson",
    "TurnState",
    "TurnTimedOut",
    "TurnUnsuccessful",
    "TurnUpdate",
    "Usage",
    "VersionSkew",
    "XenocommError",
    "errors",
    "types",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name in ("errors", "types"):
        value: Any = import_module(f"xenocomm._gen.{name}")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'xenocomm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
