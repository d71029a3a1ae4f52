"""One reading of all sources: flags over environment over config.toml over defaults, checked as a whole."""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kfm_server.canonical import canonical_json
from kfm_server.models import DEFAULT_PERSONALITY, ModelSpec, Personality
from kfm_server.ports.mcp_settings import SERVER_NAME, McpServerSpec
from kfm_server.ports.secrets import SecretUnavailable
from kfm_server.secret import Secret
from kfm_server.settings import schema
from kfm_server.settings.readers import Untyped
from kfm_server.settings.schema import KEYS, SECTIONS, SUBTABLES, TABLES, Key, Settings, SettingsError
from kfm_server.settings.secrets import Secrets, load_resolvers
from kfm_server.settings.sources import Document, Found, Stamp, close, from_environment, read_file, stamp

_MOST_PROBLEMS = 10
_SECRET_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Value:
    """One setting: its value, how it is shown (JSON), where it was set, and whether a change counts at once."""

    value: Any
    shown: str
    place: str
    reloads: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings and where each came from.

    `files`: what it was read from besides the environment and flags, each as it was before it was read.
    """

    settings: Settings
    values: Mapping[str, Value]
    files: Mapping[Path, Stamp] = field(default_factory=dict[Path, Stamp])

    @property
    def digest(self) -> str:
        """SHA-256 in hex over names and values, secrets as they are shown."""
        body = {name: value.shown for name, value in self.values.items()}
        return hashlib.sha256(canonical_json(body).encode()).hexdigest()

    def check_tools(self, known: Collection[str]) -> None:
        """SettingsError if a personality names a tool that there is not; what MCP servers have is known later."""
        problems: list[str] = []
        later = tuple(f"{name}_" for name in self.settings.mcp_servers)
        for name, personality in self.settings.personalities.items():
            for tool in personality.tools or ():
                if tool not in known and not tool.startswith(later):
                    place = self.values[f"personalities.{name}.tools"].place
                    there = close(tool, dict.fromkeys(known))
                    problems.append(
                        f"{place}: personality {name} names the tool {tool}, which there is not{there}"
                    )
        _refuse(problems)

    def check_default(self, packs: Collection[str]) -> None:
        """SettingsError if the default personality is neither configured nor one of these packs."""
        default, known = self.settings.default_personality, {*self.settings.personalities, *packs}
        if default not in known:
            place, near = self.values["default_personality"].place, close(default, dict.fromkeys(known))
            _refuse([f"{place}: default_personality names {default}, which there is not{near}"])


def read(
    flags: Mapping[str, object], environment: Mapping[str, str], path: Path, *, required: bool
) -> Reading:
    """Read everything. `required`: a missing file is an error. Raises SettingsError with all that is wrong, or ten of it."""
    problems: list[str] = []
    document = Document(str(path), {}, {})
    files = {path: stamp(path)}
    try:
        document = read_file(path)
    except FileNotFoundError:
        if required:
            raise SettingsError(f"{path}: there is no such file") from None
    found = _known_of(document, problems)
    found |= from_environment(environment, problems)
    found |= {name: Found(Untyped(value), "flag") for name, value in flags.items() if value is not None}
    resolvers = _resolvers(found, problems)
    secrets = Secrets(environment, path.parent, resolvers)
    reader = _Reader(secrets, problems)
    values: dict[str, Value] = {}
    for key in KEYS:
        if key.name in found:
            reader.take(key, key.name, found[key.name], values)
        else:
            default = schema.default_of(key)
            values[key.name] = Value(default, _shown(key, default), "default", key.reloads)
    models = _models(document, reader, values)
    personalities = _personalities(document, reader, values, models)
    mcp_servers = _mcp_servers(document, reader, values)
    if not problems:
        _cross_check(values, models, personalities, problems)
    _refuse(problems)
    flat = {key.name: values[key.name].value for key in KEYS}
    return Reading(schema.build(flat, models, personalities, mcp_servers), values, {**files, **secrets.files})


def given(settings: Settings) -> Reading:
    """The reading of settings that a program made itself."""
    values: dict[str, Value] = {}
    for key in KEYS:
        value = schema.read_key(settings, key)
        values[key.name] = Value(value, _shown(key, value), "given", key.reloads)
    for table, named in (
        ("models", settings.models),
        ("personalities", settings.personalities),
        ("mcp_servers", settings.mcp_servers),
    ):
        for name, made in named.items():
            _fill(values, table, name, made, "given")
    return Reading(settings, values)


def in_force(old: Reading, new: Reading) -> Reading:
    """The new reading with the old values of what needs a restart."""
    kept = {name: value for name, value in old.values.items() if not value.reloads}
    values = {**{name: value for name, value in new.values.items() if value.reloads}, **kept}
    flat = {key.name: values[key.name].value for key in KEYS}
    found = new.settings
    settings = schema.build(flat, found.models, found.personalities, old.settings.mcp_servers)
    return replace(new, settings=settings, values=values)


def changed(old: Reading, new: Reading) -> list[str]:
    """Names of the settings whose values differ, by name."""
    names = old.values.keys() | new.values.keys()
    return sorted(n for n in names if _value(old, n) != _value(new, n))


def _value(reading: Reading, name: str) -> object:
    value = reading.values.get(name)
    return reading if value is None else value.value


class _Reader:
    """Reads values, notes what is wrong with them."""

    def __init__(self, secrets: Secrets, problems: list[str]) -> None:
        self._secrets = secrets
        self.problems = problems

    def take(self, key: Key, name: str, found: Found, values: dict[str, Value]) -> None:
        """Read one value under its full name."""
        raw, shown = found.value, None
        label = found.place if found.place.startswith("KFM_") else f"{found.place}: {name}"
        try:
            if key.kind == "secret" and isinstance(raw, str):
                text, shown = self._secrets.resolve(raw)
                raw = Untyped(text)
            value = key.read(raw)
        except SecretUnavailable as error:
            self.problems.append(f"{label}: {error}")
            return
        except ValueError as error:
            # An address with a user or a query may hold a password or a key.
            hidden = key.kind == "secret" or (isinstance(raw, str) and ("@" in raw or "?" in raw))
            said = "" if hidden else f"={_short(raw)}"
            self.problems.append(f"{label}{said}: {error}")
            return
        if shown is None:
            shown = _shown(key, value)
        else:
            value, shown = Secret(value), canonical_json(str(shown))
        values[name] = Value(value, shown, found.place, key.reloads)


def _short(raw: object) -> str:
    text = repr(str(raw)) if isinstance(raw, Untyped) else repr(raw)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _shown(key: Key, value: Any) -> str:
    """A value as GetConfig tells it, in JSON."""
    if isinstance(value, Secret):
        value = "set" if value else ""
    elif isinstance(value, Path):
        value = str(value)
    elif isinstance(value, tuple):
        value = list(value)
    elif key.kept_as == "max_cost_nanos":
        value = value / 10**9
    elif key.kept_as in ("input_nanos", "output_nanos") and value is not None:
        value = value / 1000
    return canonical_json(value)


def _known_of(document: Document, problems: list[str]) -> dict[str, Found]:
    """The values of KEYS in the file; whatever else stands in it and means nothing is a problem."""
    known = {key.name: key for key in KEYS}
    found: dict[str, Found] = {}
    for parts, value in document.values.items():
        name = ".".join(parts)
        table = parts[0]
        key = known.get(name)
        if table in TABLES:
            if len(parts) < 3:
                problems.append(f"{value.place}: {name} is no table: write [{table}.NAME]")
            elif parts[2] in SUBTABLES.get(table, ()):
                if len(parts) != 4:
                    problems.append(
                        f"{value.place}: {name} is no table of names: write [{table}.NAME.{parts[2]}]"
                    )
            elif parts[2:] not in {(k.name,) for k in TABLES[table]}:
                near = close(parts[2], {k.name: k for k in TABLES[table]} | dict(SUBTABLES.get(table, {})))
                problems.append(f"{value.place}: {name} is unknown{near}")
        elif key is None:
            choices = {k for k in known if k.rpartition(".")[0] == name.rpartition(".")[0]}
            what = "is a table" if name in SECTIONS else "is unknown"
            problems.append(
                f"{value.place}: {name} {what}{close(name, dict.fromkeys(choices | {*SECTIONS, *TABLES}))}"
            )
        elif not key.in_file:
            problems.append(f"{value.place}: {name} is set by {key.variable}, not in a file that lies in it")
        else:
            found[name] = value
    for parts, place in document.tables.items():
        name = ".".join(parts)
        if parts[0] in TABLES and len(parts) == 2 and not _TABLE_NAME.fullmatch(parts[1]):
            problems.append(f"{place}: {parts[1][:60]!r} is no name: use 1 to 64 of A-Z a-z 0-9 . _ -")
        if len(parts) == 3 and parts[2] in SUBTABLES.get(parts[0], ()):
            continue
        if parts[0] not in (*SECTIONS, *TABLES) or len(parts) > (2 if parts[0] in TABLES else 1):
            problems.append(
                f"{place}: [{name}] is unknown{close(parts[0], dict.fromkeys((*SECTIONS, *TABLES)))}"
            )
    return found


def _resolvers(found: Mapping[str, Found], problems: list[str]) -> dict[str, Any]:
    named = found.get("secret_resolvers")
    if named is None or not isinstance(named.value, str):
        return {}
    try:
        return load_resolvers(named.value)
    except ValueError as error:
        problems.append(f"{named.place}: secret_resolvers: {error}")
        return {}


def _named(document: Document, table: str, problems: list[str]) -> dict[str, str]:
    """Names in a table and where each first stands; too many are a problem."""
    found = {
        parts[1]: place for parts, place in document.tables.items() if parts[0] == table and len(parts) > 1
    }
    for parts, value in document.values.items():
        if parts[0] == table and len(parts) > 2:
            found.setdefault(parts[1], value.place)
    if len(found) > schema.MOST_NAMED:
        problems.append(f"{document.path}: {len(found)} {table}, more than {schema.MOST_NAMED}")
    return found


def _fields(
    document: Document, table: str, name: str, reader: _Reader, values: dict[str, Value]
) -> dict[str, Any]:
    """What the file says of one model or personality, by the names of its fields."""
    made: dict[str, Any] = {}
    for key in TABLES[table]:
        found = document.values.get((table, name, key.name))
        full = f"{table}.{name}.{key.name}"
        if found is not None:
            reader.take(key, full, found, values)
            if full in values:
                made[key.kept_as] = values[full].value
    return made


def _fill(values: dict[str, Value], table: str, name: str, made: object, place: str) -> None:
    """Add what a model or personality is made of, but for what was set."""
    for key in TABLES[table]:
        value = getattr(made, key.kept_as)
        values.setdefault(f"{table}.{name}.{key.name}", Value(value, _shown(key, value), place, key.reloads))


def _models(document: Document, reader: _Reader, values: dict[str, Value]) -> dict[str, ModelSpec]:
    models: dict[str, ModelSpec] = {}
    for name, place in _named(document, "models", reader.problems).items():
        made = _fields(document, "models", name, reader, values)
        missing = [key for key in ("provider", "model") if ("models", name, key) not in document.values]
        if made.get("provider") == "scripted":  # it costs nothing, unless told otherwise
            made.setdefault("input_nanos", 0)
            made.setdefault("output_nanos", 0)
            if missing == ["model"]:
                made["model"], missing = name, []
        if missing:
            reader.problems.append(f"{place}: models.{name} lacks {' and '.join(missing)}")
        elif {"provider", "model"} <= made.keys():
            models[name] = ModelSpec(name=name, **made)
            _fill(values, "models", name, models[name], "default")
    return models


def _personalities(
    document: Document, reader: _Reader, values: dict[str, Value], models: Mapping[str, ModelSpec]
) -> dict[str, Personality]:
    """Those of the file and the built-in one. One that names no models may call all, the weakest first."""
    weakest_first = tuple(sorted(models, key=lambda name: models[name].max_complexity))
    built_in = replace(DEFAULT_PERSONALITY, models=weakest_first)
    personalities = {built_in.name: built_in}
    for name in _named(document, "personalities", reader.problems):
        made = _fields(document, "personalities", name, reader, values)
        base = built_in if name == built_in.name else Personality(name=name, models=weakest_first)
        personalities[name] = replace(base, **made)
    for name, made in personalities.items():
        _fill(values, "personalities", name, made, "default")
    return personalities


def _mcp_servers(document: Document, reader: _Reader, values: dict[str, Value]) -> dict[str, McpServerSpec]:
    servers: dict[str, McpServerSpec] = {}
    for name, place in _named(document, "mcp_servers", reader.problems).items():
        made = _fields(document, "mcp_servers", name, reader, values)
        for table, key in schema.MCP_SERVER_SECRETS.items():
            made[table] = _secrets(document, ("mcp_servers", name, table), key, reader, values)
        over = "url" if made.get("url") else "command"
        foreign = {"url": ("command", "args", "env"), "command": ("url", "headers")}[over]
        if not SERVER_NAME.fullmatch(name):
            reader.problems.append(f"{place}: mcp_servers.{name} is no name: [a-z][a-z0-9_]*, at most 32")
        elif not made.get(over):
            reader.problems.append(f"{place}: mcp_servers.{name} lacks command or url")
        elif unfit := [field for field in foreign if made.get(field)]:
            reader.problems.append(
                f"{place}: mcp_servers.{name} has {over}: {' and '.join(unfit)} is not for it"
            )
        else:
            servers[name] = McpServerSpec(name=name, **made)
            _fill(values, "mcp_servers", name, servers[name], "default")
    return servers


def _secrets(
    document: Document, table: tuple[str, ...], key: Key, reader: _Reader, values: dict[str, Value]
) -> dict[str, Secret]:
    """The values of a table of secrets, by their names."""
    made: dict[str, Secret] = {}
    for parts, found in document.values.items():
        if parts[:3] != table or len(parts) != 4:
            continue
        full = ".".join(parts)
        if not _SECRET_NAME.fullmatch(parts[3]):
            reader.problems.append(f"{found.place}: {full} is no name: use A-Z a-z 0-9 _ -")
            continue
        reader.take(key, full, found, values)
        if full in values:
            made[parts[3]] = values[full].value
    return made


def _cross_check(
    values: Mapping[str, Value],
    models: Mapping[str, ModelSpec],
    personalities: Mapping[str, Personality],
    problems: list[str],
) -> None:
    for name, personality in personalities.items():
        for model in personality.models:
            if model not in models:
                place = values[f"personalities.{name}.models"].place
                near = close(model, models)
                problems.append(
                    f"{place}: personality {name} names the model {model}, which there is not{near}"
                )
        if personality.planner in ("plan", "react") and not personality.models:
            place = values[f"personalities.{name}.planner"].place
            problems.append(f"{place}: personality {name} has the planner {personality.planner} and no model")
    for name, model in models.items():
        if model.provider == "openai" and not model.base_url:
            place = values[f"models.{name}.provider"].place
            problems.append(f"{place}: model {name} of the provider openai lacks base_url")
        if model.max_output_tokens >= model.context_tokens:
            place = _first_set(values, f"models.{name}.max_output_tokens", f"models.{name}.context_tokens")
            problems.append(
                f"{place}: model {name} writes up to {model.max_output_tokens} tokens of {model.context_tokens}"
            )
    embedder = values["knowledge.embedder"]
    if embedder.value and embedder.value not in models:
        near = close(embedder.value, models)
        problems.append(f"{embedder.place}: the embedder {embedder.value} is no model that there is{near}")


def _first_set(values: Mapping[str, Value], *names: str) -> str:
    return next((values[n].place for n in names if values[n].place != "default"), "default")


def _refuse(problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        raise SettingsError("; ".join(problems[:_MOST_PROBLEMS]) + more)
