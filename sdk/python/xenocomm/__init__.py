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
        Outcome,
        Part,
        SettleAs,
        Turn,
        TurnState,
        TurnUpdate,
    )
    from xenocomm.client import Client
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

_HOMES = {
    "Client": "xenocomm.client",
    "TurnHandle": "xenocomm.handle",
    "XenocommError": "xenocomm._gen.errors",
    **dict.fromkeys(
        ("BusyMode", "Envelope", "Limits", "Outcome", "Part", "SettleAs", "Turn", "TurnState", "TurnUpdate"),
        "xenocomm._gen.types",
    ),
    **dict.fromkeys(
        (
            "ConnectFailed",
            "ResultTimeout",
            "TurnCancelled",
            "TurnFailed",
            "TurnNeedsPerson",
            "TurnTimedOut",
            "TurnUnsuccessful",
        ),
        "xenocomm.failures",
    ),
}

__all__ = [
    "BusyMode",
    "Client",
    "ConnectFailed",
    "Envelope",
    "Limits",
    "Outcome",
    "Part",
    "ResultTimeout",
    "SettleAs",
    "Turn",
    "TurnCancelled",
    "TurnFailed",
    "TurnHandle",
    "TurnNeedsPerson",
    "TurnState",
    "TurnTimedOut",
    "TurnUnsuccessful",
    "TurnUpdate",
    "XenocommError",
    "errors",
    "types",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name in ("errors", "types"):
        value: Any = import_module(f"xenocomm._gen.{name}")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'xenocomm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
