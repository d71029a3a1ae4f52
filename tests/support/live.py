"""A real server in a process of its own, as a user would start it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.forking import Process, started

START_SECONDS = 30.0
LOOK_SECONDS = 0.02
"""Between two looks at another process."""
SECRETS = ("KFM_TOKEN", "STUB_KEY", "OPENAI_API_KEY", "THE_KEY", "KFM_OTLP_HEADERS")
"""Variables whose values are secrets, wherever a test sets them."""


async def a_moment() -> None:
    """Pause between two looks at another process, which would else spend its time on being looked at."""
    await asyncio.sleep(LOOK_SECONDS)


@dataclass
class LiveServer:
    """`kfm serve` on free ports of loopback. `start` may be called again after it was killed."""

    home: Path
    tools: str = ""
    database_url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    grpc: str = ""
    http: str = ""
    process: Process | None = None
    python: str = sys.executable
    directory: Path = Path(__file__).parents[2]
    """Where it is started: tools are found from there."""

    def start(self, *, failpoint: str = "", fixed_ports: bool = True, wait: bool = True) -> None:
        """Start it and wait until it serves. With `fixed_ports`, a restart listens where it listened before.

        Raises AssertionError with the end of its log if it does not come up. With a failpoint it may die first.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "endpoints.json").unlink(missing_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")}
        environment |= {
            "KFM_HOME": str(self.home),
            "KFM_GRPC_ADDRESS": self.grpc if fixed_ports and self.grpc else "127.0.0.1:0",
            "KFM_HTTP_ADDRESS": self.http if fixed_ports and self.http else "127.0.0.1:0",
            "KFM_DRAIN_SECONDS": "5",
            **self.environment,
        }
        if self.tools:
            environment["KFM_TOOLS"] = self.tools
        if self.database_url:
            environment["KFM_DATABASE_URL"] = self.database_url
        if failpoint:
            environment["KFM_FAILPOINTS"] = failpoint
        with (self.home / "server.log").open("ab") as log:
            self.process = started(["serve"], environment, self.directory, log, self.python)
        if wait:
            self.await_ready(may_die=bool(failpoint))

    def await_ready(self, *, may_die: bool = False) -> None:
        """Wait, bounded, until it has written where it listens."""
        assert self.process is not None
        path = self.home / "endpoints.json"
        until = time.monotonic() + START_SECONDS
        while not path.exists():
            try:
                self.process.wait(0.02)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < until, self.log_tail()
                continue
            if may_die:
                return
            raise AssertionError(self.log_tail())
        endpoints = json.loads(path.read_text())
        self.grpc, self.http = endpoints["grpc"], endpoints["http"]

    def metrics(self) -> str:
        """What /metrics says."""
        return self.get("/metrics")

    def get(self, path: str) -> str:
        """What the HTTP door answers."""
        bearer = {"Authorization": f"Bearer {self.environment.get('KFM_TOKEN', '')}"}
        request = urllib.request.Request(f"http://{self.http}{path}", headers=bearer)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def gauge(self, name: str) -> int:
        """What a gauge or counter without labels stands at."""
        lines = self.metrics().splitlines()
        return int(float(next(line.split()[1] for line in lines if line.startswith(f"{name} "))))

    def await_gauge(self, name: str, value: int, seconds: float = 30.0) -> None:
        """Wait, bounded, until it stands at the value."""
        until = time.monotonic() + seconds
        while (found := self.gauge(name)) != value:
            assert time.monotonic() < until, f"{name} is {found} and not {value}"
            time.sleep(LOOK_SECONDS)

    def await_metric(self, line: str, seconds: float = 30.0) -> str:
        """Wait, bounded, until /metrics has the line; answers all of it."""
        until = time.monotonic() + seconds
        while line not in (found := self.metrics()).splitlines():
            assert time.monotonic() < until, f"there is no {line}"
            time.sleep(LOOK_SECONDS)
        return found

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM, and its exit code; killed if it does not end in time."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self.check_log()
        return self.process.wait(1)

    def check_log(self) -> None:
        """No secret that the server was given stands in its log (ST15): every server of the whole run is looked at."""
        path = self.home / "server.log"
        log = path.read_text(errors="replace") if path.exists() else ""
        told = [
            name
            for name in SECRETS
            if len(self.environment.get(name, "")) > 5 and self.environment[name] in log
        ]
        assert not told, f"the log holds {', '.join(told)}"

    def await_death(self, seconds: float) -> bool:
        """Whether it died within the time."""
        assert self.process is not None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def log_tail(self, lines: int = 40) -> str:
        """The end of its log."""
        path = self.home / "server.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""
