"""Where a client's settings come from: arguments, the environment, a profile in a TOML file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xenocomm import arguments
from xenocomm._gen.errors import InvalidArgument

DEFAULT_ENDPOINT = "127.0.0.1:50051"
DEFAULT_PROFILE = "default"
SYSTEM_ROOTS = "system"
_VARIABLES = {"endpoint": "KFM_ENDPOINT", "token": "KFM_TOKEN", "tls_ca": "KFM_TLS_CA"}
_NUMBERS = {"timeout": 30.0, "retries": 5}
_KEYS = (*_VARIABLES, *_NUMBERS)
_MOST_RETRIES = 100


@dataclass(frozen=True, slots=True)
class Config:
    """Settings in force. `tls_ca` is empty, `system`, or a file of certificates in PEM; `profile` names what was read."""

    endpoint: str
    token: str
    tls_ca: str
    timeout: float
    retries: int
    profile: str

    def __repr__(self) -> str:
        return f"Config({self.endpoint!r}, tls_ca={self.tls_ca!r}, profile={self.profile!r})"

    def roots(self) -> bytes | None:
        """Certificates that the server's must go back to; empty for gRPC's own, None without TLS. InvalidArgument."""
        if not self.tls_ca:
            return None
        if self.tls_ca == SYSTEM_ROOTS:
            return b""
        try:
            pem = Path(self.tls_ca).expanduser().read_bytes()
        except OSError as error:
            why = f"(or KFM_TLS_CA) cannot be read: {self.tls_ca}: {error.strerror}"
            raise arguments.refuse("tls_ca", why, "form") from None
        if b"-----BEGIN CERTIFICATE-----" not in pem:
            raise arguments.refuse("tls_ca", f"(or KFM_TLS_CA) holds no certificate: {self.tls_ca}", "form")
        return pem


def profiles_file(environment: Mapping[str, str]) -> Path:
    """`kfm/profiles.toml` below XDG_CONFIG_HOME, else below ~/.config."""
    base = environment.get("XDG_CONFIG_HOME") or ""
    home = Path(environment.get("HOME") or Path.home())
    return (Path(base) if base else home / ".config") / "kfm" / "profiles.toml"


def load(given: Mapping[str, Any], profile: str | None = None) -> Config:
    """Settings by rank: what is given and not None, the profile that is named here, the environment, the profile that
    KFM_PROFILE names (else `default`, if the file has it), and what holds when nothing is said. InvalidArgument.

    A profile's token and roots go only to the profile's own endpoint.
    """
    environment = os.environ
    named = profile or environment.get("KFM_PROFILE") or ""
    kept = _profile(named, environment)
    said = {name: value for name, value in given.items() if value is not None}
    told = {name: environment[var] for name, var in _VARIABLES.items() if environment.get(var)}
    ranks = (said, kept, told) if profile else (said, told, kept)
    endpoint = next((r["endpoint"] for r in ranks if r.get("endpoint")), DEFAULT_ENDPOINT)
    if kept.get("endpoint", DEFAULT_ENDPOINT) != endpoint:
        ranks = tuple({k: v for k, v in r.items() if r is not kept or k in _NUMBERS} for r in ranks)

    def pick(name: str, otherwise: Any) -> Any:
        return next((r[name] for r in ranks if name in r), otherwise)

    return Config(
        arguments.endpoint(endpoint),
        arguments.token(pick("token", "")),
        _text("tls_ca", pick("tls_ca", "")),
        arguments.seconds("timeout", pick("timeout", _NUMBERS["timeout"]), positive=True),
        retries(pick("retries", _NUMBERS["retries"])),
        named or (DEFAULT_PROFILE if kept else ""),
    )


def retries(value: object) -> int:
    """A number of attempts after the first, 0 to 100. InvalidArgument."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_RETRIES:
        raise arguments.refuse("retries", f"must be a whole number from 0 to {_MOST_RETRIES}", "range")
    return value


def metadata(value: object) -> tuple[tuple[str, str], ...]:
    """Headers to send besides ours, as a mapping: lower case names, visible ASCII. InvalidArgument."""
    if not isinstance(value, Mapping):
        raise arguments.refuse("metadata", "must map names to text")
    pairs: Mapping[Any, Any] = value
    for name, text in pairs.items():
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_.-]{1,64}", name) or name.endswith("-bin"):
            raise arguments.refuse("metadata", f"has a name that no header can have: {name!r}", "form")
        if name == "authorization" or name.startswith("grpc-"):
            raise arguments.refuse("metadata", f"cannot set {name!r}; the token has its own argument", "form")
        if not isinstance(text, str) or not all(" " <= c <= "~" for c in text):
            raise arguments.refuse(f"metadata.{name}", "must be visible ASCII text", "form")
    return tuple((str(name), str(text)) for name, text in pairs.items())


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise arguments.refuse(name, "must be text")
    return value


def _profile(name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    path = profiles_file(environment)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if not name:
            return {}
        raise _wrong(f"profile {name!r} is asked for, and there is no {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(f"{path}: {error}") from None
    import tomllib

    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(f"{path}: {error}") from None
    for table, held in tables.items():
        if not isinstance(held, dict):
            raise _wrong(f"{_place(path, text, '', table)}: {table!r} stands outside a profile's table")
    if name and name not in tables:
        raise _wrong(f"{path}: there is no profile {name!r}, only: {', '.join(tables) or 'none'}")
    found: dict[str, Any] = dict(tables.get(name or DEFAULT_PROFILE, {}))
    for key, held in found.items():
        where = _place(path, text, name or DEFAULT_PROFILE, key)
        if key not in _KEYS:
            raise _wrong(f"{where}: {key!r} is no setting of a profile; there are: {', '.join(_KEYS)}")
        if key in _VARIABLES and not isinstance(held, str):
            raise _wrong(f"{where}: {key!r} must be text")
    return found


def _place(path: Path, text: str, table: str, key: str) -> str:
    inside = not table
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[\s*[\"']?([^\]\"']+?)[\"']?\s*\]", line)
        if head:
            inside = head[1] == table
        elif inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return f"{path}:{number}"
    return f"{path} [{table}]"


def _wrong(message: str) -> InvalidArgument:
    return InvalidArgument(message, violations=[("profile", "form", message)])
