"""The seam of secrets: whoever keeps what a placeholder `scheme:reference` stands for."""

from collections.abc import Mapping
from typing import Protocol


class SecretUnavailable(Exception):
    """The secret cannot be had; the message says why, and never holds any of it."""


class SecretResolver(Protocol):
    """One keeper of secrets. Called while settings are read, off the event loop; it may block for some seconds."""

    def resolve(self, reference: str) -> str:
        """The secret that `reference` (what stands behind the colon, as `path#key`) names. Raises SecretUnavailable."""
        ...


SecretResolvers = Mapping[str, SecretResolver]
"""By scheme: `vault` resolves `vault:path#key`."""
