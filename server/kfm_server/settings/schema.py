"""What can be set: the typed settings, and one table that says how each is named and read, and when a change counts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from kfm_server.models import DEFAULT_PERSONALITY, ModelSpec, Personality, PlannerName
from kfm_server.ports.iggy_settings import IggySettings, Transport
from kfm_server.ports.mcp_settings import McpEffect, McpServerSpec
from kfm_server.ports.sandbox import Wanted
from kfm_server.secret import NO_SECRET, Secret
from kfm_server.settings import readers
from kfm_server.settings.readers import Reader

PackTrust = Literal["any", "signed"]
CodeTier = Literal["off"] | Wanted


class SettingsError(Exception):
    """A setting cannot be used; the message names it and its place, and says what would do."""


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """`[limits]`: what a turn gets where its request says nothing. Durations in seconds; 0 tokens or cost is no bound."""

    timeout: float = 3600.0
    step_timeout: float = 30.0
    max_steps: int = 100
    max_attempts: int = 3
    max_in_flight: int = 16
    max_model_calls: int = 50
    max_tokens: int = 0
    max_cost_nanos: int = 0


@dataclass(frozen=True, slots=True)
class Telemetry:
    """`[telemetry]`: where traces go, with which headers, which share of them, and whether they hold what was said."""

    otlp_endpoint: str = ""
    otlp_headers: Secret = NO_SECRET
    sample_ratio: float = 1.0
    capture_content: bool = False


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """`[worker]`: the worker in this process, where `role` says that it has one."""

    pool: str = ""
    """the pool that it serves"""
    tools: str = ""
    """what it performs, as `module:ATTRIBUTE`, separated by commas"""
    capacity: int = 16
    """1 to 1000; attempts at one time"""


@dataclass(frozen=True, slots=True)
class KnowledgeSettings:
    """`[knowledge]`: where vectors are kept, and what makes them."""

    store: Literal["pgvector", "file"] = "pgvector"
    """`pgvector` in the database, or `file` below the home directory, of one machine, for a database without pgvector"""
    embedder: str = ""
    """a model of `[models.NAME]` that embeds; empty is the built-in one, which is lexical"""


@dataclass(frozen=True, slots=True)
class CodeSettings:
    """`[code]`: what the tool code runs in, and what one call of it may take."""

    sandbox: CodeTier = "auto"
    """`process` is Python behind walls of the kernel, `interpreter` a subset of it; `auto` the best of them that this host can confine, `off`: there is no such tool"""
    seconds: int = 5
    """1 to 600; from the start of a call to its end"""
    memory_mib: int = 128
    """64 to 4096; address space"""
    output_kib: int = 64
    """1 to 1024; of its value and what it prints, together"""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that rules where and how the server runs. Durations in seconds."""

    home: Path = Path(".kfm")
    """State: the embedded database, endpoints.json and, unless told otherwise, config.toml"""
    grpc_address: str = "127.0.0.1:50051"
    """port 0 takes a free one"""
    http_address: str = "127.0.0.1:8080"
    """port 0 takes a free one"""
    database_url: Secret = NO_SECRET
    """a postgresql:// URL of Postgres 15 or newer; empty is the embedded one"""
    redis_url: Secret = NO_SECRET
    """a redis://, rediss:// or unix:// URL of a cache for all processes; empty: each has its own"""
    token: Secret = NO_SECRET
    """visible ASCII that every door asks for, 8 characters or more beyond loopback; empty asks for none"""
    role: tuple[str, ...] = ("api", "runtime")
    """what this process does: `api` answers clients, `runtime` owns sessions and runs their turns, `worker` serves steps to runtimes"""
    tools: str = ""
    """more tools, as `module:ATTRIBUTE`, separated by commas"""
    mcp_group: str = ""
    """a group of tools that `/mcp` offers beside the default ones: steps"""
    http_fetch_allow: str = ""
    """hosts that the tool http_fetch may reach, separated by commas: `example.com`, `*.example.com` or `*`, each with `:port` for another one than 80 and 443; empty: there is no such tool"""
    partitions: int = 16
    """1 to 1024; fixed once a database is initialised"""
    advertised_address: str = ""
    """where other processes reach the gRPC door; empty: where it listens"""
    retention_days: int = 0
    """how long a turn is kept after its end, at least; 0 is for ever"""
    drain_seconds: float = 30.0
    """0 to 3600; longest wait for running attempts at a stop"""
    max_in_flight: int = 1_024
    """unary calls, and turns on their way in, at one time"""
    max_streams: int = 12_000
    """streams and waiting calls at one time"""
    log_level: str = "info"
    """debug, info, warning or error"""
    packs: str = ""
    """the directory with personality packs; empty: `personalities` in the home"""
    pack_trust: PackTrust = "any"
    """any, or signed: only packs that a key in `pack-keys` of the home has signed are taken"""
    secret_resolvers: str = ""
    """keepers of secrets, as `module:ATTRIBUTE` of a mapping from scheme to SecretResolver"""
    default_personality: str = DEFAULT_PERSONALITY.name
    """what a turn gets that names none"""
    limits: TurnLimits = field(default_factory=TurnLimits)
    telemetry: Telemetry = field(default_factory=Telemetry)
    iggy: IggySettings = field(default_factory=IggySettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    knowledge: KnowledgeSettings = field(default_factory=KnowledgeSettings)
    code: CodeSettings = field(default_factory=CodeSettings)
    models: Mapping[str, ModelSpec] = field(default_factory=lambda: MappingProxyType[str, ModelSpec]({}))
    """by name, in the order of the file"""
    personalities: Mapping[str, Personality] = field(
        default_factory=lambda: MappingProxyType({DEFAULT_PERSONALITY.name: DEFAULT_PERSONALITY})
    )
    """by name"""
    mcp_servers: Mapping[str, McpServerSpec] = field(
        default_factory=lambda: MappingProxyType[str, McpServerSpec]({})
    )
    """by name"""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All that must not be shown, whole and in the parts that are secret by themselves."""
        headers = self.telemetry.otlp_headers.reveal()
        urls = f"{self.database_url.reveal()} {self.redis_url.reveal()}"
        passwords = re.findall(r"\b[a-z]+://[^:/@ ]*:([^@/ ]+)@", urls)
        parts = [*passwords, *re.findall(r"=(?:Bearer |Basic )?([^,]+)", headers)]
        kept = (
            self.token,
            self.database_url,
            self.redis_url,
            self.iggy.password,
            self.iggy.token,
            *map(Secret, parts),
            *(m.api_key for m in self.models.values()),
            *(value for s in self.mcp_servers.values() for value in (*s.env.values(), *s.headers.values())),
        )
        return tuple(filter(None, kept))


Kind = Literal["plain", "secret"]


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `field`: where it is kept; `reloads`: a change counts without a restart; `variable`: empty if none."""

    name: str
    read: Reader
    reloads: bool = False
    kind: Kind = "plain"
    field: str = ""
    variable: str = ""
    in_file: bool = True

    @property
    def kept_as(self) -> str:
        """The name of the field of its dataclass."""
        return self.field or self.name.rpartition(".")[2]


def _top(
    name: str, read: Reader, *, reloads: bool = False, kind: Kind = "plain", in_file: bool = True
) -> Key:
    return Key(name, read, reloads, kind, variable=f"KFM_{name.upper()}", in_file=in_file)


def _limit(name: str, read: Reader, field: str = "") -> Key:
    return Key(f"limits.{name}", read, True, field=field, variable=f"KFM_LIMITS_{name.upper()}")


def _iggy(name: str, read: Reader, kind: Kind = "plain") -> Key:
    return Key(f"iggy.{name}", read, kind=kind, variable=f"KFM_IGGY_{name.upper()}")


_address = readers.text(300)
_credential = readers.matching(r"[!-~]{1,255}", "1 to 255 visible ASCII characters, of which a space is none")
_headers = readers.matching(
    r"[a-z0-9_.-]+=[ -+\--~]+(,[a-z0-9_.-]+=[ -+\--~]+)*", "of the form name=value, more of them after commas"
)
_DAY = 86_400.0
KEYS: tuple[Key, ...] = (
    _top("home", readers.directory, in_file=False),
    _top("grpc_address", _address),
    _top("http_address", _address),
    _top("database_url", readers.database_url, kind="secret"),
    _top(
        "redis_url",
        readers.matching(r"(rediss?|unix)://\S{1,1000}", "of the form redis://user:password@host:port/0"),
        kind="secret",
    ),
    _top("token", readers.token, kind="secret"),
    _top("role", readers.some_of("api", "runtime", "worker")),
    _top("tools", readers.text()),
    _top("mcp_group", readers.one_of("", "steps")),
    _top("http_fetch_allow", readers.text()),
    _top("partitions", readers.whole(1, 1024)),
    _top("advertised_address", _address),
    _top("retention_days", readers.whole(0, 36_500)),
    _top("drain_seconds", readers.number(0, 3600, "a number of seconds")),
    _top("max_in_flight", readers.whole(1, 100_000)),
    _top("max_streams", readers.whole(1, 100_000)),
    _top("log_level", readers.one_of("debug", "info", "warning", "error"), reloads=True),
    _top("packs", readers.text()),
    _top("pack_trust", readers.one_of(*get_args(PackTrust))),
    _top("secret_resolvers", readers.text()),
    _top("default_personality", readers.text(128), reloads=True),
    _limit("timeout", readers.seconds(0.001, 366 * _DAY)),
    _limit("step_timeout", readers.seconds(0.001, _DAY)),
    _limit("max_steps", readers.whole(1, 1000)),
    _limit("max_attempts", readers.whole(1, 20)),
    _limit("max_in_flight", readers.whole(1, 64)),
    _limit("max_model_calls", readers.whole(1, 1000)),
    _limit("max_tokens", readers.whole(0, 10**15)),
    _limit("max_cost_usd", readers.usd(10**9, 10**6), field="max_cost_nanos"),
    Key("worker.pool", readers.name, variable="KFM_WORKER_POOL"),
    Key("worker.tools", readers.text(), variable="KFM_WORKER_TOOLS"),
    Key("worker.capacity", readers.whole(1, 1000), variable="KFM_WORKER_CAPACITY"),
    Key("knowledge.store", readers.one_of("pgvector", "file"), variable="KFM_KNOWLEDGE_STORE"),
    Key("knowledge.embedder", readers.text(64), variable="KFM_KNOWLEDGE_EMBEDDER"),
    Key("code.sandbox", readers.one_of("off", *get_args(Wanted)), variable="KFM_CODE_SANDBOX"),
    Key("code.seconds", readers.whole(1, 600), variable="KFM_CODE_SECONDS"),
    Key("code.memory_mib", readers.whole(64, 4096), variable="KFM_CODE_MEMORY_MIB"),
    Key("code.output_kib", readers.whole(1, 1024), variable="KFM_CODE_OUTPUT_KIB"),
    Key(
        "telemetry.otlp_endpoint",
        readers.matching(r"https?://[^/@\s]+/?", "of the form http://host:port, without a path or a user"),
        variable="KFM_OTLP_ENDPOINT",
    ),
    Key("telemetry.otlp_headers", _headers, False, "secret", variable="KFM_OTLP_HEADERS"),
    Key("telemetry.sample_ratio", readers.number(0, 1), True, variable="KFM_TELEMETRY_SAMPLE_RATIO"),
    Key("telemetry.capture_content", readers.flag, True, variable="KFM_TELEMETRY_CAPTURE_CONTENT"),
    _iggy("address", readers.matching(r"[^\s/@]{1,250}:[0-9]{1,5}", "of the form host:port")),
    _iggy("transport", readers.one_of(*get_args(Transport))),
    _iggy("username", readers.text(255)),
    _iggy("password", _credential, "secret"),
    _iggy("token", _credential, "secret"),
    _iggy("tls", readers.flag),
    _iggy("tls_domain", readers.text(255)),
    _iggy("tls_ca_file", readers.text()),
    _iggy("stream", readers.name),
    _iggy("durable", readers.flag),
    _iggy("retention", readers.seconds(0, 36_500 * _DAY)),
    _iggy("max_partition_bytes", readers.whole(0, 10**15)),
    _iggy("pools", readers.names(64, commas=True)),
    _iggy("deadline", readers.seconds(0.1, 300)),
)
"""Every setting of which there is one. Those of `[models.NAME]` and other tables of names stand below."""

_url = readers.matching(
    r"https?://[^\s@?#]+",
    "of the form http://host:port/path, without user, password or query: put the key into api_key",
)
MODEL_KEYS: tuple[Key, ...] = (
    Key("provider", readers.one_of("openai", "litellm", "scripted"), True),
    Key("model", readers.text(256), True),
    Key("base_url", _url, True),
    Key("api_key", readers.token, True, "secret"),
    Key("context_tokens", readers.whole(256, 10**8), True),
    Key("max_output_tokens", readers.whole(1, 10**7), True),
    Key("input_usd_per_million", readers.usd(1000, 10**6), True, field="input_nanos"),
    Key("output_usd_per_million", readers.usd(1000, 10**6), True, field="output_nanos"),
    Key("max_complexity", readers.whole(0, 100), True),
    Key("temperature", readers.number(0, 2), True),
    Key("script", readers.text(), True),
    Key("timeout", readers.seconds(0.1, 3600), True, field="timeout_seconds"),
    Key("fallbacks", readers.names(16), True),
    Key("cache_seconds", readers.number(0, 30 * _DAY, "a number of seconds"), True),
)
PERSONALITY_KEYS: tuple[Key, ...] = (
    Key("description", readers.text(2000), True),
    Key("planner", readers.one_of(*get_args(PlannerName)), True),
    Key("models", readers.names(64), True),
    Key("instructions", readers.text(65_536), True),
    Key("tools", readers.names(1000), True),
    Key("max_repairs", readers.whole(0, 10), True),
)
MCP_SERVER_KEYS: tuple[Key, ...] = (
    Key("command", readers.text()),
    Key("args", readers.texts(100)),
    Key(
        "url",
        readers.matching(
            r"https?://[^\s@?#]+",
            "of the form http://host:port/path, without user, password or query: put keys into headers",
        ),
    ),
    Key("tools", readers.texts(1000)),
    Key("effect", readers.one_of(*get_args(McpEffect))),
    Key("trust_read_only", readers.flag),
    Key("deadline", readers.seconds(0.1, 3600)),
    Key("breaker_failures", readers.whole(1, 1000)),
    Key("breaker_seconds", readers.seconds(0.1, 3600)),
)
MCP_SERVER_SECRETS: Mapping[str, Key] = {
    "env": Key("env", readers.text(), kind="secret"),
    "headers": Key(
        "headers", readers.matching(r"[!-~]([ -~]*[!-~])?", "visible ASCII characters"), kind="secret"
    ),
}
"""Tables in the table of an MCP server, and how each of their values is read."""
MOST_NAMED = 256
"""Models, personalities and MCP servers that one configuration may have."""

SECTIONS = ("limits", "telemetry", "iggy", "worker", "knowledge", "code")
TABLES: Mapping[str, tuple[Key, ...]] = {
    "models": MODEL_KEYS,
    "personalities": PERSONALITY_KEYS,
    "mcp_servers": MCP_SERVER_KEYS,
}
SUBTABLES: Mapping[str, Mapping[str, Key]] = {"mcp_servers": MCP_SERVER_SECRETS}


def default_of(key: Key) -> Any:
    """What a setting of KEYS is when nothing sets it."""
    return read_key(Settings(), key)


def read_key(settings: Settings, key: Key) -> Any:
    """A setting of KEYS as it stands in the settings."""
    section, _, _ = key.name.rpartition(".")
    return getattr(getattr(settings, section) if section else settings, key.kept_as)


def build(
    flat: Mapping[str, Any],
    models: Mapping[str, ModelSpec],
    personalities: Mapping[str, Personality],
    mcp_servers: Mapping[str, McpServerSpec],
) -> Settings:
    """Settings out of values by the names of KEYS; those that are missing are their defaults."""
    parts: dict[str, dict[str, Any]] = {"": {}, **{section: {} for section in SECTIONS}}
    for key in KEYS:
        if key.name in flat:
            parts[key.name.rpartition(".")[0]][key.kept_as] = flat[key.name]
    return Settings(
        **parts[""],
        limits=TurnLimits(**parts["limits"]),
        telemetry=Telemetry(**parts["telemetry"]),
        iggy=IggySettings(**parts["iggy"]),
        worker=WorkerSettings(**parts["worker"]),
        knowledge=KnowledgeSettings(**parts["knowledge"]),
        code=CodeSettings(**parts["code"]),
        models=MappingProxyType(dict(models)),
        personalities=MappingProxyType(dict(personalities)),
        mcp_servers=MappingProxyType(dict(mcp_servers)),
    )


assert {f.name for f in fields(Settings)} == {
    *(key.kept_as for key in KEYS if "." not in key.name), *SECTIONS, *TABLES
}  # fmt: skip
