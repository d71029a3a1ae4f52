"""`[iggy]`: from the file and the environment, with its secrets kept."""

from pathlib import Path

import pytest
from kfm_server.ports.iggy_settings import IggySettings
from kfm_server.settings import Config, SettingsError

pytestmark = pytest.mark.requirement("B1")


def read(home: Path, text: str = "", **environment: str) -> Config:
    (home / "config.toml").write_text(text)
    return Config.load({"home": str(home)}, environment=environment)


def test_there_is_no_broker_unless_an_address_is_given(tmp_path: Path) -> None:
    assert read(tmp_path).settings.iggy == IggySettings()
    assert not IggySettings().address


def test_the_section_is_read_and_the_environment_lies_over_it(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        '[iggy]\naddress = "one:8090"\nstream = "kfm-live"\nretention = "2d"\ntls = true\n',
        KFM_IGGY_ADDRESS="two:8090",
        KFM_IGGY_DEADLINE="2s",
        KFM_IGGY_DURABLE="false",
    )
    iggy = config.settings.iggy
    assert (iggy.address, iggy.stream, iggy.retention, iggy.tls) == ("two:8090", "kfm-live", 172_800.0, True)
    assert (iggy.deadline, iggy.durable) == (2.0, False)
    assert config.values["iggy.address"].place == "KFM_IGGY_ADDRESS"


def test_password_and_token_are_secrets_that_nothing_shows(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken-of-ours")
    config = read(tmp_path, '[iggy]\npassword = "pa55-word"\ntoken = "file:token"\n')
    iggy = config.settings.iggy
    assert (iggy.password.reveal(), iggy.token.reveal()) == ("pa55-word", "t0ken-of-ours")
    placed = read(tmp_path, KFM_IGGY_PASSWORD="file:token")
    assert placed.settings.iggy.password.reveal() == "t0ken-of-ours"
    assert placed.values["iggy.password"].shown == '"file:token"'
    shown = repr(iggy) + "".join(value.shown for value in config.values.values())
    assert "pa55" not in shown and "t0ken" not in shown
    assert {iggy.password, iggy.token} <= set(config.settings.secrets)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('address = "nowhere"', "host:port"),
        ('address = "iggy://a:1"', "host:port"),
        ('transport = "pigeon"', "tcp, quic, websocket"),
        ('stream = ""', "not a name"),
        ('password = "a b"', "visible ASCII"),
        ("retention = -1", "not a duration"),
        ("deadline = 0", "not a duration"),
        ("partitions = 4", "unknown"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read(tmp_path, f"[iggy]\n{line}\n")
