"""The fixture `iggy`: a real server where one is, else the stub; and which it was."""

import asyncio
import contextlib
import itertools
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from kfm_server.ports.iggy_settings import IggySettings
from kfm_server.secret import Secret

from tests.support.iggy_stub import IggyStub

_streams = itertools.count(1)
_run = uuid4().hex[:8]
_kinds: set[str] = set()
"""What ran in this process."""


class Iggy:
    """A server. `own`: whether it may be killed."""

    def __init__(self, address: str, kind: str, username: str = "iggy", password: str = "iggy") -> None:
        self.address, self.kind = address, kind
        self._login = username, Secret(password)
        _kinds.add(kind)

    @property
    def own(self) -> bool:
        return False

    def settings(self, **changes: object) -> IggySettings:
        """With a stream of its own."""
        username, password = self._login
        stream = f"kfm-test-{_run}-{next(_streams)}"
        made = IggySettings(address=self.address, username=username, password=password, stream=stream)
        return replace(made, **changes)  # type: ignore[arg-type]

    async def kill(self) -> None:
        """As kill -9."""
        raise NotImplementedError

    async def start(self) -> None:
        """Again, with what it had kept."""
        raise NotImplementedError

    async def forget(self) -> None:
        """While it is killed: all that it has."""
        raise NotImplementedError


class StubbedIggy(Iggy):
    def __init__(self, stub: IggyStub) -> None:
        super().__init__(stub.address, "the stub")
        self.stub = stub

    @property
    def own(self) -> bool:
        return True

    async def kill(self) -> None:
        await self.stub.kill()

    async def start(self) -> None:
        await self.stub.start()

    async def forget(self) -> None:
        self.stub.wipe()


class OwnIggy(Iggy):
    """A process of `iggy-server` in a directory of its own; or of a `launcher`, which is told the port and the directory."""

    def __init__(self, command: Sequence[str], home: Path, *, launcher: bool = False) -> None:
        home.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        version = "of KFM_TEST_IGGY_SERVER"
        if not launcher:
            version = subprocess.run(
                [*command, "--version"], capture_output=True, text=True, timeout=20
            ).stdout.strip()
        super().__init__(f"127.0.0.1:{self.port}", f"a real server: {version}")
        self._command, self._home = [*command, *((str(self.port), str(home)) if launcher else ())], home
        system = "SYSTEM_" if "edge" in version else ""
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "IGGY_ENV_PATH": "/dev/null",
            "IGGY_ROOT_USERNAME": "iggy",
            "IGGY_ROOT_PASSWORD": "iggy",
            "IGGY_TCP_ADDRESS": self.address,
            "IGGY_HTTP_ENABLED": "false",
            "IGGY_QUIC_ENABLED": "false",
            "IGGY_WEBSOCKET_ENABLED": "false",
            f"IGGY_{system}PATH": str(home / "iggy"),
            f"IGGY_{system}MEMORY_POOL_SIZE": "512 MiB",
            f"IGGY_{system}SHARDING_CPU_ALLOCATION": "all",
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def own(self) -> bool:
        return True

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self._home / "server.log").open("ab") as log:
            return subprocess.Popen(
                self._command, cwd=self._home, env=self._environment, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(self._process.wait, 20)
            self._process = None

    async def forget(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self._home / "iggy")

    async def start(self) -> None:
        self._process = self._spawn()
        async with asyncio.timeout(30):
            while True:
                assert self._process.poll() is None, (self._home / "server.log").read_text()[-2000:]
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def serving(home: Path) -> AsyncGenerator[Iggy]:
    """KFM_TEST_IGGY, or what the command KFM_TEST_IGGY_SERVER starts when PORT and DIRECTORY are added to it, or
    `iggy-server` on PATH, or the stub."""
    given = os.environ.get("KFM_TEST_IGGY", "")
    launcher = os.environ.get("KFM_TEST_IGGY_SERVER", "")
    found = launcher or shutil.which("iggy-server")
    if given:
        username = os.environ.get("KFM_TEST_IGGY_USERNAME", "iggy")
        password = os.environ.get("KFM_TEST_IGGY_PASSWORD", "iggy")
        yield Iggy(given, f"a real server at {given}", username, password)
    elif found:
        server = OwnIggy(shlex.split(found), home, launcher=bool(launcher))
        await server.start()
        try:
            yield server
        finally:
            await server.kill()
    else:
        async with IggyStub().running() as stub:
            yield StubbedIggy(stub)


def real() -> bool:
    """Whether there is a real server to be had."""
    given = os.environ.get("KFM_TEST_IGGY") or os.environ.get("KFM_TEST_IGGY_SERVER")
    return bool(given or shutil.which("iggy-server"))


def summary() -> str:
    """What a run says at its end; empty if nothing asked for a broker."""
    if not _kinds:
        return ""
    told = f"Iggy was {', '.join(sorted(_kinds))}"
    if _kinds == {"the stub"}:
        told += " of its protocol, NO REAL SERVER: set KFM_TEST_IGGY=host:port, or have iggy-server on PATH"
    return told
