"""One real server, started as a user would start it, for all end-to-end tests that do not need one of their own."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
from xenocomm import Client

from tests.support.forking import Forker
from tests.support.live import LiveServer
from tests.support.model_server import ModelServer

TOOLS = "tests.support.ledger:TOOLS"


@pytest.fixture(scope="session", autouse=True)
def forker() -> Generator[None]:
    """Servers and commands of these tests are forked by a process that has imported what they need."""
    with Forker():
        yield


@pytest.fixture(scope="session")
def live_server() -> Generator[LiveServer]:
    """`kfm serve` on free ports, with its own Postgres and the tools of every effect contract."""
    home = Path(tempfile.mkdtemp(prefix="kfm-live-"))
    home.chmod(0o755)  # Postgres runs as another user when we are root
    server = LiveServer(home, tools=TOOLS, environment={"LEDGER_FILE": str(home / "ledger.jsonl")})
    try:
        server.start()
        yield server
        assert server.stop() == 0, server.log_tail()
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def live(live_server: LiveServer) -> AsyncIterator[Client]:
    """A client of the live server."""
    async with Client(live_server.grpc, timeout=15) as client:
        yield client


@pytest.fixture(scope="session")
def model_server() -> Generator[ModelServer]:
    """The development server of models, in a process of its own; each test plays its own script."""
    server = ModelServer(token="key-of-the-stub")
    try:
        server.start()
        yield server
    finally:
        server.stop()


ADAPTERS = {
    "direct": ("openai", "scripted"),
    "lite": ("litellm", "openai/scripted"),
    "claude": ("litellm", "anthropic/claude-sonnet-4-5"),
    "llama": ("litellm", "ollama_chat/llama3"),
}
"""By the first part of a personality's name: provider, and the model as it names it."""
CHAINED = {
    "claude-chained": 'fallbacks = ["spare"]\ninput_usd_per_million = 1.0\noutput_usd_per_million = 2.0',
    "llama-chained": 'fallbacks = ["spare"]\ninput_usd_per_million = 1.0\noutput_usd_per_million = 2.0',
    "chained": 'fallbacks = ["spare"]\ntimeout = 1.0\ninput_usd_per_million = 1.0\noutput_usd_per_million = 2.0',
    "fragile": 'fallbacks = ["spare"]',
    "spare": "context_tokens = 500000\ninput_usd_per_million = 30.0\noutput_usd_per_million = 40.0",
    "kept": "cache_seconds = 600.0\ninput_usd_per_million = 1.0\noutput_usd_per_million = 2.0",
}
"""Models by name, with what else is said of them, of the adapter that the name begins with, else of the direct one;
personalities `chained-react` and so on.
"""
HASTY_SECONDS = 2.0
"""Timeout of a call for personalities whose names begin with `hasty-`."""


def endpoint(model: str, server: ModelServer) -> str:
    """Where a model is asked: Anthropic's and Ollama's paths are not below /v1, or bring it along."""
    return server.url.removesuffix("/v1") if model.startswith(("anthropic/", "ollama")) else server.url


@pytest.fixture(scope="session")
def model_live_server(model_server: ModelServer) -> Generator[LiveServer]:
    """`kfm serve` with models behind HTTP. Personalities: `direct-react`, `lite-plan` and so on."""
    home = Path(tempfile.mkdtemp(prefix="kfm-models-"))
    home.chmod(0o755)
    sections: list[str] = []
    for adapter, (provider, model), timeout in (
        (name, of, seconds) for name, of in ADAPTERS.items() for seconds in (20.0, HASTY_SECONDS)
    ):
        name = f"hasty-{adapter}" if timeout == HASTY_SECONDS else adapter
        sections.append(
            f"""
[models.{name}]
provider = "{provider}"
model = "{model}"
base_url = "{endpoint(model, model_server)}"
api_key = "env:STUB_KEY"
timeout = {timeout}
context_tokens = 500000
max_output_tokens = 60000
input_usd_per_million = 1.0
output_usd_per_million = 2.0
"""
        )
        for planner in ("react", "plan", "hybrid"):
            sections.append(f'[personalities.{name}-{planner}]\nplanner = "{planner}"\nmodels = ["{name}"]\n')
    for name, more in CHAINED.items():
        provider, model = ADAPTERS.get(name.partition("-")[0], ("openai", name))
        sections.append(
            f"""
[models.{name}]
provider = "{provider}"
model = "{model}"
base_url = "{endpoint(model, model_server)}"
api_key = "env:STUB_KEY"
{more}
[personalities.{name}-react]
planner = "react"
models = ["{name}"]
"""
        )
    (home / "config.toml").write_text("\n".join(sections))
    environment = {"LEDGER_FILE": str(home / "ledger.jsonl"), "STUB_KEY": model_server.token}
    server = LiveServer(home, tools=TOOLS, environment=environment)
    try:
        server.start()
        yield server
        assert server.stop() == 0, server.log_tail()
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def model_live(model_live_server: LiveServer) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(model_live_server.grpc, timeout=60) as client:
        yield client
