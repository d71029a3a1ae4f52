"""`kfm worker` in a process of its own."""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.forking import Process, started

STOP_SECONDS = 20.0


@dataclass
class LiveWorker:
    """A worker for a server; `home` is where its log goes and where its tools write their ledger."""

    home: Path
    endpoint: str
    name: str
    pool: str = "gpu"
    tools: str = "tests.support.work_tools:TOOLS"
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    process: Process | None = None
    python: str = sys.executable
    directory: Path = Path(__file__).parents[2]

    def start(self, *, failpoint: str = "") -> "LiveWorker":
        """Start it. It connects when there is a server."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")}
        environment |= {"LEDGER_FILE": str(self.home / "ledger.jsonl"), "KFM_LOG_LEVEL": "debug"}
        environment |= self.environment
        if failpoint:
            environment["KFM_FAILPOINTS"] = failpoint
        arguments = [
            "--pool",
            self.pool,
            "--tools",
            self.tools,
            "--name",
            self.name,
            "--endpoint",
            self.endpoint,
        ]
        with self.log.open("ab") as log:
            words = ["worker", *arguments, *self.options]
            self.process = started(words, environment, self.directory, log, self.python)
        return self

    @property
    def log(self) -> Path:
        """What it said."""
        return self.home / f"worker-{self.name}.log"

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT, SIGTERM."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, also of one that is frozen."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def ended(self, seconds: float = STOP_SECONDS) -> int:
        """Wait, bounded, for its end; answers its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def log_tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
