"""Where a client's settings come from."""

from pathlib import Path

import pytest
from xenocomm import Client, errors
from xenocomm.config import load, metadata, profiles_file

pytestmark = pytest.mark.requirement("E5")

PROFILES = """
[default]
endpoint = "default:1"
token = "default-token"

[staging]
endpoint = "staging:1"
token = "staging-token"
timeout = 7
retries = 2
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home without anything in the environment."""
    for name in ("KFM_ENDPOINT", "KFM_TOKEN", "KFM_TLS_CA", "KFM_PROFILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".config" / "kfm").mkdir(parents=True)
    return tmp_path


def written(home: Path, text: str) -> Path:
    path = home / ".config" / "kfm" / "profiles.toml"
    path.write_text(text)
    return path


def test_without_anything_it_is_the_local_server(home: Path) -> None:
    found = load({})
    assert (found.endpoint, found.token, found.tls_ca) == ("127.0.0.1:50051", "", "")
    assert (found.timeout, found.retries, found.profile) == (30.0, 5, "")


def test_arguments_win_over_the_environment_and_that_over_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(home, PROFILES)
    assert load({}).endpoint == "default:1"
    monkeypatch.setenv("KFM_PROFILE", "staging")
    assert (load({}).endpoint, load({}).token, load({}).timeout) == ("staging:1", "staging-token", 7.0)
    monkeypatch.setenv("KFM_TOKEN", "mine")
    assert load({}).token == "mine"
    monkeypatch.setenv("KFM_ENDPOINT", "elsewhere:1")
    assert load({}).endpoint == "elsewhere:1"
    assert load({"endpoint": "given:1", "timeout": 1}).endpoint == "given:1"
    assert load({"timeout": 1}).timeout == 1.0


def test_a_profile_that_the_call_names_wins_over_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(home, PROFILES)
    monkeypatch.setenv("KFM_ENDPOINT", "elsewhere:1")
    found = load({}, "staging")
    assert (found.endpoint, found.token, found.profile) == ("staging:1", "staging-token", "staging")
    assert load({"token": "mine"}, "staging").token == "mine"


def test_a_profiles_token_goes_to_no_other_endpoint(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(home, PROFILES)
    assert load({"endpoint": "elsewhere:1"}, "staging").token == ""
    monkeypatch.setenv("KFM_ENDPOINT", "elsewhere:1")
    monkeypatch.setenv("KFM_PROFILE", "staging")
    found = load({})
    assert (found.endpoint, found.token, found.timeout) == ("elsewhere:1", "", 7.0)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[staging]\nendpoint = "a:1"\ntokn = "x"\n', "profiles.toml:3: 'tokn'"),
        ("[a]\nx = 1\n[staging]\nx = 1\n", "profiles.toml:4: 'x'"),
        ('endpoint = "a:1"\n', "profiles.toml:1: 'endpoint' stands outside"),
        ("[staging]\nendpoint = 5\n", "profiles.toml:2: 'endpoint' must be text"),
        ("[staging\n", "line 1"),
        ("[other]\n", "there is no profile 'staging', only: other"),
        ('[staging]\nendpoint = "nonsense"\n', "endpoint"),
        ('[staging]\ntimeout = "x"\n', "timeout"),
        ("[staging]\nretries = 1000\n", "retries"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_place(home: Path, text: str, place: str) -> None:
    written(home, text)
    with pytest.raises(errors.InvalidArgument, match=place.replace("[", r"\[")):
        load({}, "staging")


def test_what_is_wrong_in_one_profile_leaves_the_others_usable(home: Path) -> None:
    written(home, '[a]\ntokn = "x"\n[staging]\nendpoint = "a:1"\n')
    assert load({}, "staging").endpoint == "a:1"


def test_a_profile_that_is_asked_for_must_be_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFM_PROFILE", "staging")
    with pytest.raises(errors.InvalidArgument, match=r"there is no .*profiles\.toml"):
        load({})


def test_the_file_is_where_the_desktop_keeps_settings(home: Path) -> None:
    assert profiles_file({"HOME": "/h"}) == Path("/h/.config/kfm/profiles.toml")
    assert profiles_file({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}) == Path("/x/kfm/profiles.toml")


def test_roots_are_a_file_of_certificates_or_refused(home: Path) -> None:
    assert load({}).roots() is None
    assert load({"tls_ca": "system"}).roots() == b""
    pem = home / "ca.pem"
    for text in (None, "nothing"):
        if text is not None:
            pem.write_text(text)
        with pytest.raises(errors.InvalidArgument, match="tls_ca"):
            Client(tls_ca=str(pem))
    pem.write_text("-----BEGIN CERTIFICATE-----\n")
    assert load({"tls_ca": str(pem)}).roots() == pem.read_bytes()


def test_a_token_is_not_shown(home: Path) -> None:
    assert "s3cret" not in repr(load({"token": "s3cret"}))


@pytest.mark.parametrize(
    "given",
    [{"authorization": "x"}, {"grpc-timeout": "1"}, {"A": "x"}, {"a-bin": "x"}, {"a": "\n"}, {"a": 1}, 5],
)
def test_metadata_that_cannot_be_sent_is_refused(given: object) -> None:
    with pytest.raises(errors.InvalidArgument, match="metadata"):
        metadata(given)
