"""Importing much at once, as the start of a server does."""

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def uncollected() -> Generator[None]:
    """Import inside: what modules are made of stays, so the collector of garbage, a third of their time, waits."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
