"""Child processes of the bench: started on loopback, bounded in time, stopped by pid, their CPU counted."""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
_PR_SET_PDEATHSIG = 1


class Missing(Exception):
    """A system cannot take part; the text says why and what would help."""


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def environment(**extra: str) -> dict[str, str]:
    """Our environment without settings of KFM, so that only `extra` rules."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | extra


class Child:
    """One process that is stopped by pid when the bench is done with it. Its output goes to `log`."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        user: int | None = None,
        piped: bool = False,
        stop_signal: int = signal.SIGTERM,
    ) -> None:
        self.log, self._signal = log, stop_signal
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else out,
                stderr=out,
                env=dict(env or environment()),
                cwd=cwd,
                user=user,
                group=user,
                extra_groups=[] if user is not None else None,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def tail(self) -> str:
        """The end of its log, for messages."""
        return self.log.read_text(errors="replace")[-1200:] if self.log.exists() else ""

    def check(self) -> None:
        """Raise Missing if it has ended."""
        if self.process.poll() is not None:
            raise Missing(f"{self.log.stem} ended with code {self.process.returncode}: {self.tail()}")

    def address(self, timeout: float = 20) -> str:
        """The base URL that it says first, once it listens. Raises Missing."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            self.check()
            said, whole_line, _ = self.log.read_text(errors="replace").partition("\n")
            if whole_line and said.startswith("http"):
                return said
            time.sleep(0.01)
        raise Missing(f"{self.log.stem} named no address within {timeout:.0f} s: {self.tail()}")

    def said(self, text: str, timeout: float = 20) -> None:
        """Wait until its log holds the text. Raises Missing."""
        until = time.monotonic() + timeout
        while text not in self.log.read_text(errors="replace"):
            self.check()
            if time.monotonic() > until:
                raise Missing(f"{self.log.stem} did not say {text} within {timeout:.0f} s: {self.tail()}")
            time.sleep(0.01)

    def close(self) -> None:
        """Ask it to stop, wait 10 s, then kill it."""
        if self.process.poll() is None:
            self.process.send_signal(self._signal)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)


class Client(Child):
    """A client process that runs bench.driver.obey."""

    def __init__(
        self, argv: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(argv, log, env=env, piped=True)
        self._rest = b""

    def tell(self, **command: Any) -> None:
        """Send one command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, kind: str, timeout: float) -> dict[str, Any]:
        """Wait for the line of this kind. Raises Missing when it does not come in time."""
        assert self.process.stdout is not None
        until = time.monotonic() + timeout
        while True:
            while b"\n" in self._rest:
                line, self._rest = self._rest.split(b"\n", 1)
                if line.startswith(b'{"bench":'):
                    said = json.loads(line)
                    if said["bench"] == kind:
                        return said
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise Missing(f"{self.log.stem} did not say {kind!r} within {timeout:.0f} s: {self.tail()}")
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                self.process.wait(10)
                self.check()
            self._rest += piece


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system seconds that these processes and all below them have used, ended children included."""
    seen: set[int] = set()
    total = 0.0
    for root in pids:
        try:
            tree = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for process in tree:
            if process.pid in seen:
                continue
            seen.add(process.pid)
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


def free_port() -> int:
    """A free loopback port below 32768: above, the kernel hands them to outgoing connections."""
    start = 20000 + os.getpid() % 5000
    for port in range(start, 32768):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise Missing("no free port between 20000 and 32768")


_given: set[int] = set()
