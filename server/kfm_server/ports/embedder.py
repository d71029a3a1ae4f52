"""The seam of embedders: text in, vectors out."""

from collections.abc import Sequence
from typing import Protocol

from kfm_server.ports.vectors import EmbedderIdentity, Vector


class EmbedderFailed(Exception):
    """No vectors came; the message says why. `retryable`: another attempt may succeed."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class Embedder(Protocol):
    """Makes vectors of texts: the same text gives the same direction, as long as the identity is the same."""

    async def identity(self) -> EmbedderIdentity:
        """What its vectors are of. The first call may have to ask the provider. Raises EmbedderFailed."""
        ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """One vector of length 1 for each text, in order; a text without a word may give zeros. Raises EmbedderFailed."""
        ...
