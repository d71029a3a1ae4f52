"""Processes of `kfm` without the second that each spends importing: forked by one that has imported everything.

`Forker` starts that process, which is this module as a program. What runs in each child is the main function of the
command line, with arguments, environment, directory and standard files of its own.
What a test shows of the start of a process itself needs a process that was started as a user starts it.
"""

import contextlib
import gc
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, ClassVar

from tests.support.forked import Forked

ROOT = Path(__file__).parents[2]
KFM = (sys.executable, "-m", "kfm_server.doors.cli.main")
"""How a command line for `kfm` begins."""


_AT_IMPORT = ("KFM_FAILPOINTS", "PYTHONPATH", "PYTHONVERBOSE")
Process = subprocess.Popen[bytes] | Forked


def started(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    output: IO[bytes],
    python: str = sys.executable,
) -> Process:
    """A process of `kfm`, which writes what it says to `output`; forked, if a Forker runs and that would be the same.

    It is not with another release (`python`, `directory`), nor where the environment rules over imports.
    """
    same = (
        python == sys.executable
        and directory == ROOT
        and all(environment.get(v) == os.environ.get(v) for v in _AT_IMPORT)
    )
    if Forker.running is not None and same:
        with open(os.devnull, "rb") as nothing:
            files = (nothing.fileno(), output.fileno(), output.fileno())
            return Forked(Forker.running.where, arguments, environment, str(directory), files)
    command = [python, *KFM[1:], *arguments]
    return subprocess.Popen(command, env={**environment}, stdout=output, stderr=output, cwd=directory)


def kfm() -> tuple[str, ...]:
    """How a command line for `kfm` begins that is run in the root of the repository; forked, if a Forker runs."""
    if Forker.running is None:
        return KFM
    return (sys.executable, "-S", str(ROOT / "tests" / "support" / "forked.py"), Forker.running.where)


class Forker:
    """The process that forks; a context manager, one at a time."""

    running: ClassVar["Forker | None"] = None

    def __enter__(self) -> "Forker":
        """Start it; it is ready before the first `Forked` is."""
        self._home = tempfile.TemporaryDirectory(prefix="kfm-fork-")
        self.where = str(Path(self._home.name) / "socket")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(self.where)
        listening.listen(64)
        # Without a locale, as the commands that tests start are.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("KFM_", "LC_", "LANG"))}
        command = [sys.executable, "-m", "tests.support.forking", str(listening.fileno())]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, pass_fds=[listening.fileno()]
        )
        listening.close()
        Forker.running = self
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and all that it forked."""
        Forker.running = None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._home.cleanup()


class _Child(Exception):
    """Raised in the child that was just forked, and caught where nothing of its parent is left on the stack."""

    def __init__(self, order: dict[str, Any], files: Sequence[int]) -> None:
        super().__init__()
        self.order = order
        self.files = files


def _serve(listening: socket.socket) -> None:
    """Fork for everybody who connects, until standard input ends. Raises _Child in each child."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as ready:
        for source in (0, woken, listening):
            ready.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj == 0:
                    for pid in children:
                        os.kill(pid, signal.SIGKILL)
                    return
                if key.fileobj == woken:
                    os.read(woken, 4096)
                    _reap(children, ready)
                elif key.fileobj is listening:
                    line, _ = listening.accept()
                    head, files, _, _ = socket.recv_fds(line, 10, 3)
                    order = json.loads(line.recv(int(head), socket.MSG_WAITALL))
                    pid = os.fork()
                    if pid == 0:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        for mine in (woken, wake, listening.detach(), line.detach()):
                            os.close(mine)
                        for other in children.values():
                            other.close()
                        raise _Child(order, files)
                    for given in files:
                        os.close(given)
                    children[pid] = line
                    line.sendall(b"%10d" % pid)
                    ready.register(line, selectors.EVENT_READ, pid)
                elif key.data in children:  # nobody waits for it any more
                    ready.unregister(key.fileobj)
                    os.kill(key.data, signal.SIGKILL)


def _reap(children: dict[int, socket.socket], ready: selectors.BaseSelector) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        line = children.pop(pid)
        if line.fileno() in ready.get_map():
            ready.unregister(line)
        with contextlib.suppress(OSError):
            line.sendall(b"%10d" % os.waitstatus_to_exitcode(status))
        line.close()


def _become(child: _Child) -> None:
    """Be the process that was ordered."""
    for wanted, given in enumerate(child.files):
        os.dup2(given, wanted)
        os.close(given)
    os.chdir(child.order["directory"])
    os.environ.clear()
    os.environ.update(child.order["environment"])
    sys.path[0] = child.order["directory"]
    sys.argv[:] = ["kfm", *child.order["arguments"]]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        lines = number == 2 or os.isatty(number)
        errors = getattr(sys, name).errors
        made = open(number, "w", 1 if lines else -1, errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)
    random.seed()


def _main() -> None:
    gc.disable()
    for name in ("kfm_mcp.bridge", "kfm_server.starting", "xenocomm.client"):
        import_module(name)
    from kfm_server.doors.cli.main import main

    gc.freeze()
    try:
        _serve(socket.socket(fileno=int(sys.argv[1])))
        return
    except _Child as ordered:
        child = ordered
    gc.enable()
    _become(child)
    main()


if __name__ == "__main__":
    _main()
