"""`[mcp_servers.NAME]`: what is read, what is refused and how that is said; what is secret stays so."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kfm_server.ports.mcp_settings import McpServerSpec
from kfm_server.secret import Secret
from kfm_server.settings import Config, SettingsError

pytestmark = pytest.mark.requirement("T1", "R1")

BOTH = """
[mcp_servers.files]
command = "files-mcp"
args = ["--root", "/srv"]
tools = ["read-file"]
trust_read_only = true
deadline = "5s"
breaker_failures = 2
breaker_seconds = 1
[mcp_servers.files.env]
FILES_TOKEN = "env:FILES"

[mcp_servers.web]
url = "https://mcp.example.com/mcp"
effect = "idempotent"
headers = { Authorization = "Bearer not-shown" }
"""
Read = Callable[..., Config]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a config.toml of this text, and an environment."""

    def read(text: str, **environment: str) -> Config:
        (tmp_path / "config.toml").write_text(text)
        return Config.load({"home": str(tmp_path)}, environment=environment)

    return read


def test_a_server_is_a_program_or_an_address(read: Read) -> None:
    config = read(BOTH, FILES="t0ps3cret")
    assert config.settings.mcp_servers == {
        "files": McpServerSpec(
            name="files",
            command="files-mcp",
            args=("--root", "/srv"),
            env={"FILES_TOKEN": Secret("t0ps3cret")},
            tools=("read-file",),
            trust_read_only=True,
            deadline=5.0,
            breaker_failures=2,
            breaker_seconds=1.0,
        ),
        "web": McpServerSpec(
            name="web",
            url="https://mcp.example.com/mcp",
            headers={"Authorization": Secret("Bearer not-shown")},
            effect="idempotent",
        ),
    }
    assert config.values["mcp_servers.files.env.FILES_TOKEN"].shown == '"env:FILES"'
    assert config.values["mcp_servers.web.headers.Authorization"].shown == '"set"'
    assert config.values["mcp_servers.web.deadline"].shown == "30.0"
    assert {s.reveal() for s in config.settings.secrets} == {"t0ps3cret", "Bearer not-shown"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[mcp_servers.a]\ndeadline = 5", "config.toml:1: mcp_servers.a lacks command or url"),
        ("[mcp_servers.A]\ncommand = 'x'", "mcp_servers.A is no name: [a-z][a-z0-9_]*, at most 32"),
        ("[mcp_servers.a]\ncommand = 'x'\nurl = 'http://h/'", "has url: command is not for it"),
        ("[mcp_servers.a]\ncommand = 'x'\nheaders = {b = 'c'}", "has command: headers is not for it"),
        ("[mcp_servers.a]\ncomand = 'x'", "mcp_servers.a.comand is unknown; did you mean command?"),
        ("[mcp_servers.a]\ncommand = 'x'\nenv = 'c'", "is no table of names: write [mcp_servers.NAME.env]"),
        ("[mcp_servers.a]\nurl = 'ftp://h/'", "not of the form http://host:port/path"),
        ("[mcp_servers.a]\nurl = 'http://h/'\n[mcp_servers.a.headers]\n'x y' = 'z'", "x y is no name"),
        ("[mcp_servers.a]\nurl = 'http://h/'\n[mcp_servers.a.headers]\nx = \"a\\nb\"", "visible ASCII"),
        (
            "[mcp_servers.a]\ncommand = 'x'\n[mcp_servers.a.env]\nB = 'env:NONE'",
            "env:NONE: the variable is not",
        ),
        ("[mcp_servers.a]\ncommand = 'x'\nargs = [1]", "not a text of at most"),
        ("[mcp_servers.a]\ncommand = 'x'\neffect = 'transactional'", "not one of at_most_once"),
        ("[mcp_servers.a.other]\nb = 'c'", "mcp_servers.a.other"),
    ],
)
def test_a_mistake_is_told_with_its_place(read: Read, text: str, why: str) -> None:
    with pytest.raises(SettingsError) as told:
        read(text)
    assert why in str(told.value)
    assert "config.toml:" in str(told.value)


def test_personalities_may_name_what_a_server_is_yet_to_bring(read: Read) -> None:
    names = '\n[personalities.p]\ntools = ["files_read_file", "{}"]'
    config = read(BOTH + names.format("calculator"), FILES="x")
    config.require_tools({"calculator"})
    with pytest.raises(SettingsError, match="names the tool other_tool"):
        read(BOTH + names.format("other_tool"), FILES="x").require_tools({"calculator"})


def test_a_change_counts_at_the_next_start(read: Read, tmp_path: Path) -> None:
    config = read(BOTH, FILES="x")
    text = BOTH.replace('deadline = "5s"', "deadline = 7").replace("[mcp_servers.web]", "[mcp_servers.www]")
    (tmp_path / "config.toml").write_text(text)
    change = config.take(config.read_again())
    assert change.applied == ()
    assert {"mcp_servers.files.deadline", "mcp_servers.www.url", "mcp_servers.web.url"} <= set(
        change.need_restart
    )
    assert set(config.settings.mcp_servers) == {"files", "web"}
    assert config.settings.mcp_servers["files"].deadline == 5.0
