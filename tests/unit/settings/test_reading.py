"""Settings: what wins, what is refused and how that is said."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from kfm_server.ports.secrets import SecretUnavailable
from kfm_server.secret import Secret
from kfm_server.settings import KEYS, Config, Settings, SettingsError
from kfm_server.settings.schema import default_of, read_key

pytestmark = pytest.mark.requirement("R1")

MODEL = """
[models.small]
provider = "openai"
model = "m-1"
base_url = "http://127.0.0.1:9/v1"
"""
Read = Callable[..., Config]


class Vault:
    """A keeper of one secret."""

    def resolve(self, reference: str) -> str:
        if reference != "kv/kfm#token":
            raise SecretUnavailable("there is no such path")
        return "from-the-vault"


RESOLVERS = {"vault": Vault()}


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a config.toml of this text, an environment and flags."""

    def read(text: str = "", environment: dict[str, str] | None = None, **flags: Any) -> Config:
        (tmp_path / "config.toml").write_text(text)
        return Config.load({"home": str(tmp_path), **flags}, environment=environment or {})

    return read


def refused(read: Read, text: str, environment: dict[str, str] | None = None) -> str:
    """Why it is refused."""
    with pytest.raises(SettingsError) as why:
        read(text, environment)
    return str(why.value)


def test_flags_win_over_the_environment_that_over_the_file_and_that_over_defaults(read: Read) -> None:
    text = 'log_level = "debug"\npartitions = 4\nretention_days = 3'
    config = read(text, {"KFM_LOG_LEVEL": "warning", "KFM_PARTITIONS": "8"}, partitions="2")
    settings = config.settings
    assert (settings.partitions, settings.log_level, settings.retention_days) == (2, "warning", 3)
    assert settings.max_streams == Settings().max_streams
    places = {name: config.values[name].place for name in ("partitions", "log_level", "max_streams")}
    assert places == {"partitions": "flag", "log_level": "KFM_LOG_LEVEL", "max_streams": "default"}
    assert config.values["retention_days"].place.endswith("config.toml:3")


def test_every_setting_has_its_default_and_reads_it_back_from_its_own_text(read: Read) -> None:
    settings = read().settings
    for key in KEYS:
        if key.name != "home":
            assert read_key(settings, key) == default_of(key), key.name


def test_models_and_personalities_are_typed_and_filled_with_defaults(read: Read) -> None:
    text = f"""
default_personality = "clerk"
{MODEL}
input_usd_per_million = 0.15
output_usd_per_million = 0.0005
timeout = "90s"
max_complexity = 40
[models.large]
provider = "scripted"
[personalities.clerk]
description = "Keeps lists."
planner = "react"
models = ["large", "small"]
tools = ["todo_store"]
[personalities.anyone]
[limits]
timeout = "10m"
step_timeout = 2.5
max_cost_usd = 0.25
"""
    settings = read(text).settings
    small = settings.models["small"]
    assert (small.model, small.input_nanos, small.output_nanos, small.timeout_seconds) == ("m-1", 150, 1, 90)
    clerk, anyone = settings.personalities["clerk"], settings.personalities["anyone"]
    assert (clerk.planner, clerk.models, clerk.tools) == ("react", ("large", "small"), ("todo_store",))
    assert (anyone.planner, anyone.models, anyone.tools) == ("hybrid", ("small", "large"), None)
    assert settings.personalities["assistant"].models == ("small", "large")
    assert settings.default_personality == "clerk"
    assert (settings.limits.timeout, settings.limits.step_timeout) == (600, 2.5)
    assert settings.limits.max_cost_nanos == 250_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MODEL + "base_ulr = 'x'", "config.toml:6: models.small.base_ulr is unknown; did you mean base_url?"),
        ("[telemetry]\notlp_endpont = 'x'", "config.toml:2: telemetry.otlp_endpont is unknown; did you mean telemetry.otlp_endpoint?"),
        ("[personalites.x]", "config.toml:1: [personalites.x] is unknown; did you mean personalities?"),
        ("[models.a.b]\nprovider='x'", "config.toml:1: [models.a.b] is unknown"),
        ("[[models.a]]\nprovider='x'", "config.toml:1: [[models.a]] is a list of tables"),
        ("models = 3", "config.toml:1: models is no table: write [models.NAME]"),
        ("limits = 3", "config.toml:1: limits is a table"),
        ("log_level = 5", "config.toml:1: log_level=5: not one of debug"),
        ("partitions = '16'", "config.toml:1: partitions='16': not a whole number from 1 to 1024"),
        ("partitions = true", "config.toml:1: partitions=True: not a whole number"),
        ("drain_seconds = nan", "config.toml:1: drain_seconds=nan: not a number of seconds from 0 to 3600"),
        ("[limits]\nmax_steps = 1001", "config.toml:2: limits.max_steps=1001: not a whole number from 1 to 1000"),
        ("[limits]\ntimeout = '1 hour'", "config.toml:2: limits.timeout='1 hour': not a duration"),
        ("[telemetry]\notlp_endpoint = 'http://me:pw@host'", "not of the form http://host:port"),
        ("home = '/x'", "config.toml:1: home is set by KFM_HOME"),
        ("a = \nb = 2", "config.toml:1: no TOML: Invalid value"),
        ("a = '''\nnever closed", "no TOML"),
        ("a = 1\na = 2", "config.toml:2: no TOML"),
        ("[models.'a b']\nprovider='scripted'", "'a b' is no name"),
        ("[models.small]\nmodel = 'm'", "config.toml:1: models.small lacks provider"),
        ("[models.small]\nprovider = 'openai'\nmodel = 'm'", "config.toml:2: model small of the provider openai lacks base_url"),
        (MODEL + "max_output_tokens = 4096\ncontext_tokens = 4096", "writes up to 4096 tokens of 4096"),
        ("[personalities.x]\nmodels = ['b']", "config.toml:2: personality x names the model b, which there is not"),
        (MODEL + "[personalities.x]\nmodels = ['smal']", "names the model smal, which there is not; did you mean small?"),
        ("[personalities.x]\nplanner = 'raect'", "config.toml:2: personalities.x.planner='raect': not one of rules, plan, react, hybrid"),
        ("[personalities.x]\nplanner = 'react'", "personality x has the planner react and no model"),
        ("[personalities.x]\ntools = ['a', 'a']", "a list that has a name twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(read: Read, text: str, said: str) -> None:
    assert said in refused(read, text)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KFM_LOGLEVEL", "info", "KFM_LOGLEVEL is no setting; did you mean KFM_LOG_LEVEL?"),
        ("KFM_XYZZY", "1", "KFM_XYZZY is no setting; there are: KFM_ADVERTISED_ADDRESS"),
        ("KFM_PARTITIONS", "0x10", "KFM_PARTITIONS='0x10': not a whole number"),
        ("KFM_LIMITS_MAX_STEPS", "0", "KFM_LIMITS_MAX_STEPS='0': not a whole number from 1 to 1000"),
        ("KFM_TELEMETRY_CAPTURE_CONTENT", "yes", "not true or false"),
    ],
)
def test_a_variable_that_means_nothing_is_refused(read: Read, name: str, value: str, said: str) -> None:
    assert said in refused(read, "", {name: value})


def test_all_that_is_wrong_is_said_at_once_but_no_more_than_ten(read: Read) -> None:
    why = refused(read, "\n".join(f"unknown_{n} = 1" for n in range(14)))
    assert why.count("is unknown") == 10
    assert why.endswith("; and 4 more")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_values_over_many_lines_dotted_and_inline_keep_their_own_line(read: Read, end: str) -> None:
    text = """# a comment
personalities.x.tools = [
  "a", # one
  "b",
]
personalities.y = {planner = "rules", instructions = '''
[models.not_a_table]
'''}
"limits"."max_steps" = 7
[personalities.z]
instructions = \"\"\"
[limits]
max_steps = 8 ''' ""
\"\"\"
tools = []
"""
    config = read(text.replace("\n", end))
    lines = {name: value.place.rpartition(":")[2] for name, value in config.values.items()}
    found = [f"{name}:{line}" for name, line in lines.items() if line.isdecimal()]
    assert sorted(found) == [
        "limits.max_steps:9",
        "personalities.x.tools:2",
        "personalities.y.instructions:6",
        "personalities.y.planner:6",
        "personalities.z.instructions:11",
        "personalities.z.tools:15",
    ]
    assert not config.settings.models
    assert "[models.not_a_table]" in config.settings.personalities["y"].instructions


def test_a_file_that_is_named_must_be_there_and_the_one_in_home_need_not(tmp_path: Path) -> None:
    assert Config.load({"home": str(tmp_path)}, environment={}).settings.log_level == "info"
    for flags, environment in (
        ({}, {"KFM_CONFIG": str(tmp_path / "no.toml")}),
        ({"home": str(tmp_path)}, {}),
    ):
        path = None if environment else tmp_path / "no.toml"
        with pytest.raises(SettingsError, match=r"no\.toml: there is no such file"):
            Config.load(flags, path=path, environment=environment)


def test_a_file_that_is_no_text_or_too_large_is_refused(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(SettingsError, match=r"config\.toml:2: not UTF-8"):
        Config.load({"home": str(tmp_path)}, environment={})
    path.write_bytes(b"#" * 1_100_000)
    with pytest.raises(SettingsError, match="larger than 1048576 bytes"):
        Config.load({"home": str(tmp_path)}, environment={})


def test_a_personality_with_a_tool_that_is_not_there_is_refused_with_both_names(read: Read) -> None:
    config = read("[personalities.clerk]\ntools = ['todo_stor']")
    with pytest.raises(
        SettingsError, match=r"config\.toml:2: personality clerk names the tool todo_stor.*todo_store\?"
    ):
        config.require_tools({"todo_store", "calculator"})


@pytest.mark.parametrize("kind", ["literal", "env", "file", "relative", "vault"])
def test_a_secret_comes_from_its_placeholder_and_is_never_shown(
    read: Read, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "key").write_text("the-secret-itself\n")
    written = {
        "literal": "the-secret-itself",
        "env": "env:THE_KEY",
        "file": f"file:{tmp_path}/key",
        "relative": "file:key",
        "vault": "vault:kv/kfm#token",
    }[kind]
    environment = {"THE_KEY": "the-secret-itself", "KFM_SECRET_RESOLVERS": f"{__name__}:RESOLVERS"}
    config = read(f'{MODEL}api_key = "{written}"', environment)
    key = config.settings.models["small"].api_key
    assert key.reveal() == ("from-the-vault" if kind == "vault" else "the-secret-itself")
    assert config.values["models.small.api_key"].shown == ('"set"' if kind == "literal" else f'"{written}"')
    for shown in (repr(config.settings), str(key), f"{key}", f"{key!r}"):
        assert key.reveal() not in shown
    with pytest.raises(TypeError):
        orjson.dumps({"key": key})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("env:NO_SUCH", "models.small.api_key: env:NO_SUCH: the variable is not set"),
        ("file:/no/such", "file:/no/such: the file cannot be read: No such file"),
        ("vault:kv#x", "vault:kv#x: no resolver is configured for vault: name one in secret_resolvers"),
        ("not a key", "models.small.api_key: not 1 to 1024 visible ASCII"),
    ],
)
def test_a_secret_that_cannot_be_had_is_refused_without_showing_any(
    read: Read, written: str, said: str
) -> None:
    why = refused(read, f'{MODEL}api_key = "{written}"')
    assert f"config.toml:6: {said}" in why or said in why
    assert "not a key" not in why


def test_a_bad_secret_is_not_repeated_in_what_refuses_it(read: Read) -> None:
    assert "s3 cret" not in refused(read, "", {"KFM_TOKEN": "s3 cret"})
    assert "hunter2" not in refused(read, 'database_url = "mysql://me:hunter2@host/db"')


@pytest.mark.parametrize(
    "url", ["http://me:hunter2@host/v1", "http://host/v1?key=hunter2", "me:hunter2@host"]
)
def test_an_address_that_may_hold_a_password_is_refused_without_showing_it(read: Read, url: str) -> None:
    why = refused(read, f'[models.small]\nprovider = "openai"\nmodel = "m"\nbase_url = "{url}"')
    assert "models.small.base_url: not of the form" in why and "put the key into api_key" in why
    assert "hunter2" not in why


def test_secrets_are_equal_by_their_text_alone_and_cannot_be_copied_out() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    with pytest.raises(TypeError):
        copy.copy(Secret("a"))


def test_a_model_without_prices_has_none_and_a_scripted_one_costs_nothing(read: Read) -> None:
    config = read(f'{MODEL}output_usd_per_million = 0\n[models.played]\nprovider = "scripted"')
    paid, played = config.settings.models.values()
    assert (paid.input_nanos, paid.output_nanos) == (None, 0)
    assert config.values[f"models.{paid.name}.input_usd_per_million"].shown == "null"
    assert (played.input_nanos, played.output_nanos) == (0, 0)


def test_the_digest_tells_configurations_apart_and_knows_no_secret(read: Read) -> None:
    one = read(f'{MODEL}api_key = "first"').digest
    assert read(f'{MODEL}api_key = "second"').digest == one
    assert read(f"{MODEL}temperature = 0.5").digest != one


def test_the_default_personality_is_a_configured_one_or_a_pack(read: Read, tmp_path: Path) -> None:
    packs = {"teller"}
    read("").require_default(lambda: ())
    config = read("default_personality = 'teller'")
    config.require_default(lambda: packs)
    (tmp_path / "config.toml").write_text("\ndefault_personality = 'tellr'")
    with pytest.raises(
        SettingsError, match=r":2: default_personality names tellr, which there is not; did you mean teller"
    ):
        config.read_again()
    packs.add("tellr")
    assert config.read_again().settings.default_personality == "tellr"
    with pytest.raises(SettingsError, match="default_personality names tellr, which there is not"):
        read("default_personality = 'tellr'").require_default(lambda: ())
