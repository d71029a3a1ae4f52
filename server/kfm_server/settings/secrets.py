"""Placeholders of secrets: `env:NAME`, `file:/path`, and the schemes of resolvers, as `vault:path#key`."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfm_server.ports.secrets import SecretResolver, SecretResolvers, SecretUnavailable
from kfm_server.settings.sources import Stamp, stamp

MAX_SECRET_BYTES = 64 * 1024


class EnvironmentSecrets:
    """`env:NAME`: a variable of the environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def resolve(self, reference: str) -> str:
        """The variable's value."""
        value = self._environment.get(reference)
        if not value:
            raise SecretUnavailable("the variable is not set")
        return value


class FileSecrets:
    """`file:/path`: what a file holds, without the line's end. A relative path begins at config.toml's directory."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.read: dict[Path, Stamp] = {}

    def resolve(self, reference: str) -> str:
        """The file's text."""
        path = self._base / reference
        self.read.setdefault(path, stamp(path))
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_SECRET_BYTES + 1)
            text = raw.decode()
        except OSError as error:
            raise SecretUnavailable(f"the file cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SecretUnavailable("the file is not UTF-8") from None
        if len(raw) > MAX_SECRET_BYTES:
            raise SecretUnavailable(f"the file is larger than {MAX_SECRET_BYTES} bytes")
        return text.removesuffix("\n").removesuffix("\r")


class _Unconfigured:
    def resolve(self, reference: str) -> str:
        del reference
        raise SecretUnavailable("no resolver is configured for vault: name one in secret_resolvers")


class Secrets:
    """All schemes that are known; what has none of them is the secret itself."""

    def __init__(self, environment: Mapping[str, str], base: Path, more: SecretResolvers) -> None:
        """`base`: the directory where relative files begin."""
        self._files = FileSecrets(base)
        self._resolvers: dict[str, SecretResolver] = {
            "vault": _Unconfigured(),
            **more,
            "env": EnvironmentSecrets(environment),
            "file": self._files,
        }

    @property
    def files(self) -> Mapping[Path, Stamp]:
        """The files that were asked for so far, as they were before each was read."""
        return self._files.read

    def resolve(self, text: str) -> tuple[str, str]:
        """The secret, and how it is shown: the placeholder, `set` for a literal one. Raises SecretUnavailable."""
        scheme, colon, reference = text.partition(":")
        resolver = self._resolvers.get(scheme) if colon else None
        if resolver is None:
            return text, "set" if text else ""
        try:
            return resolver.resolve(reference), text
        except SecretUnavailable as error:
            raise SecretUnavailable(f"{text}: {error}") from None
        except Exception as error:  # someone else's code: its message may hold the secret
            raise SecretUnavailable(f"{text}: its resolver failed with {type(error).__name__}") from None


def load_resolvers(names: str) -> dict[str, SecretResolver]:
    """The mappings that `module:ATTRIBUTE`, separated by commas, name. ValueError says what is wrong with one."""
    found: dict[str, SecretResolver] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        module, _, attribute = name.partition(":")
        try:
            mapping: Any = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise ValueError(f"{name} cannot be imported: {type(error).__name__}") from None
        if not isinstance(mapping, Mapping) or not all(
            isinstance(scheme, str) and callable(getattr(resolver, "resolve", None))
            for scheme, resolver in mapping.items()
        ):
            raise ValueError(f"{name} is no mapping from scheme to SecretResolver")
        found.update(mapping)
    return found
