"""A process of `kfm` that a Forker forks (forking.py), to be used as a subprocess.Popen.

As a program, `forked.py SOCKET ARGUMENTS...` stands for such a process, for callers that need a child of their own.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence


class Forked:
    """One process of `kfm`. It is killed when this object's socket is closed, so none outlives its test run."""

    def __init__(
        self,
        where: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
        files: Sequence[int],
    ) -> None:
        """`where`: the socket of the Forker; `files`: descriptors of standard input, output and error."""
        self.args = ["kfm", *arguments]
        self.returncode: int | None = None
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(where)
        order = json.dumps(
            {"arguments": [*arguments], "environment": {**environment}, "directory": directory}
        )
        socket.send_fds(self._line, [b"%10d" % len(order)], [*files])
        self._line.sendall(order.encode())
        self.pid = int(_read(self._line, 10))

    def wait(self, timeout: float | None = None) -> int:
        """As of Popen."""
        if not self._told(timeout):
            from subprocess import TimeoutExpired  # slow to import, for a stand-in

            raise TimeoutExpired(self.args, timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def poll(self) -> int | None:
        """As of Popen."""
        self._told(0)
        return self.returncode

    def _told(self, timeout: float | None) -> bool:
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                self.returncode = int(_read(self._line, 10))
            except (TimeoutError, BlockingIOError):
                return False
            self._line.close()
        return True

    def send_signal(self, number: int) -> None:
        """As of Popen."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """As of Popen."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """As of Popen."""
        self.send_signal(signal.SIGTERM)


def _read(line: socket.socket, length: int) -> bytes:
    """Exactly so many bytes; they come in one piece, being few."""
    told = line.recv(length)
    if len(told) != length:
        raise ConnectionError("the process that forks is gone")
    return told


def _stand_in(where: str, arguments: Sequence[str]) -> int:
    """Be the child that a caller wanted: its signals go on to the real one, whose exit code is ours."""
    process = Forked(where, arguments, os.environ, os.getcwd(), (0, 1, 2))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(process.pid, number))
    code = process.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(_stand_in(sys.argv[1], sys.argv[2:]))
