"""A server of ours with models of the bench's stub, for the benches that need both."""

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from bench.processes import Child, environment
from bench.systems import Server, scratch


@contextmanager
def server_with(models: Mapping[str, str]) -> Generator[tuple[Server, str]]:
    """A server and the stub's base URL: `kfm serve` whose personalities are named like their models, over the direct adapter; {name: model of the stub}."""
    with scratch() as home:
        stub = Child([sys.executable, "-m", "bench.model_stub"], home / "stub.log", env=environment())
        try:
            url = stub.address()
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
