"""A server of ours with models of the bench's stub, for the benches that need both."""

import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.processes import Child, environment
from bench.systems import Server, scratch

START_SECONDS = 20.0


@contextmanager
def server_with(models: Mapping[str, str]) -> Generator[tuple[Server, str]]:
    """A server and the stub's base URL: `kfm serve` whose personalities are named like their models, over the direct adapter; {name: model of the stub}."""
    with scratch() as home:
        log = home / "stub.log"
        stub = Child([sys.executable, "-m", "bench.model_stub"], log, env=environment())
        try:
            url = _address(stub, log)
            (home / "kfm").mkdir()
            (home / "kfm" / "config.toml").write_text(
                "\n".join(
                    f'[models.{name}]\nprovider = "openai"\nmodel = "{model}"\nbase_url = "{url}"\n'
                    f'timeout = 600.0\n[personalities.{name}]\nplanner = "react"\nmodels = ["{name}"]\n'
                    for name, model in models.items()
                )
            )
            server = Server(home)
            try:
                yield server, url
            finally:
                server.close()
        finally:
            stub.close()


def _address(stub: Child, log: Path) -> str:
    until = time.monotonic() + START_SECONDS
    while not log.exists() or not log.read_text().startswith("http"):
        stub.check()
        assert time.monotonic() < until, stub.tail()
        time.sleep(0.05)
    return log.read_text().strip()
