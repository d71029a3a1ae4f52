"""The development server of models in a process of its own."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 30.0


@dataclass
class ModelServer:
    """`kfm model-server` on a free port of loopback. `url` ends in /v1."""

    token: str = ""
    url: str = ""
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it listens. Raises AssertionError if it does not."""
        command = [Path(sys.executable).with_name("kfm"), "model-server", "--address", "127.0.0.1:0"]
        if self.token:
            command += ["--token", self.token]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://"), f"it did not start: {self.process.wait(START_SECONDS)}"

    def stop(self) -> None:
        """SIGTERM, then kill."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def play(self, *rules: dict[str, Any]) -> None:
        """Change the script, and forget what was asked."""
        self._post("script", {"rules": list(rules)})
        self._post("reset", {})

    def requests(self) -> list[dict[str, Any]]:
        """What was asked since then, oldest first."""
        return self._call("requests", None)["requests"]

    def count(self) -> int:
        """How often it was asked since then."""
        return self._call("requests", None)["count"]

    async def await_ended(self, how: str, seconds: float = 10.0) -> None:
        """Wait, bounded, until the last request ended so; the caller's own connections go on meanwhile."""
        until = time.monotonic() + seconds
        while (found := (await asyncio.to_thread(self.requests))[-1]["ended"]) != how:
            assert time.monotonic() < until, f"it is {found} and not {how}"

    def _post(self, verb: str, body: Any) -> None:
        self._call(verb, json.dumps(body).encode())

    def _call(self, verb: str, body: bytes | None) -> Any:
        url = f"{self.url.removesuffix('/v1')}/_dev/{verb}"
        headers = {"Authorization": f"Bearer {self.token}"}
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return json.load(answer)
