"""A server of one's own: started as a child, and ended with whoever needed it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from kfm_server.doors.binding import split_address

_START_S = 60.0
_STOP_S = 20.0


class NoStart(Exception):
    """The server did not start; its own words are on standard error. `exit_code` is its own."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("the server did not start; its own words are above")
        self.exit_code = exit_code or 1


class OwnServer:
    """At most one `kfm serve`, on free ports of loopback."""

    def __init__(self) -> None:
        """Starts nothing."""
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, token: str) -> None:
        """Start it and wait until it serves. NoStart."""
        written = home() / "endpoints.json"
        written.unlink(missing_ok=True)
        environment = {**os.environ, "KFM_GRPC_ADDRESS": "127.0.0.1:0", "KFM_HTTP_ADDRESS": "127.0.0.1:0"}
        environment |= {"KFM_TOKEN": token} if token else {}
        # A session of its own: an interrupt from the keyboard goes to the bridge, which ends it in order.
        self.child = subprocess.Popen(
            [sys.executable, "-m", "kfm_server"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
        )
        until = time.monotonic() + _START_S
        while not written.exists():
            try:
                code = self.child.wait(0.05)
            except subprocess.TimeoutExpired:
                if time.monotonic() < until:
                    continue
                self.stop()
                code = 1
            raise NoStart(code)

    def stop(self) -> None:
        """Let it drain, then end it; nothing if none was started."""
        child = self.child
        if child is None or child.poll() is not None:
            return
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def home() -> Path:
    """Where a server that is started here keeps its state."""
    return Path(os.environ.get("KFM_HOME") or ".kfm")


def endpoint_in_home() -> str:
    """Where the server of this home said that it listens; empty if it never did."""
    from xenocomm import XenocommError, arguments

    try:
        return arguments.endpoint(json.loads((home() / "endpoints.json").read_bytes())["grpc"])
    except (OSError, ValueError, KeyError, TypeError, XenocommError):
        return ""


def listens(endpoint: str) -> bool:
    """Whether something accepts connections there, at one of them if it names several."""
    for address in endpoint.split(","):
        with contextlib.suppress(OSError):
            socket.create_connection(split_address(address), 2).close()
            return True
    return False
