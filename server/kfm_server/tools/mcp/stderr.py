"""What a child says on its standard error: a bounded end of it, without the secrets that it was given."""

from typing import Final

from kfm_server.canonical import clean_text
from kfm_server.ports.mcp_settings import McpServerSpec

KEPT_CHARACTERS: Final = 2048
"""How much of its end is kept."""
_LINE = 500
_HIDDEN = "[secret]"
_WORD = 8
"""Shortest part of a secret that is hidden by itself, as the token of `Bearer TOKEN`."""


class Stderr:
    """The end of what one child says."""

    def __init__(self, spec: McpServerSpec) -> None:
        self.tail = ""
        """Its last lines, each cut to 500 characters, together at most KEPT_CHARACTERS."""
        given = [value.reveal() for value in (*spec.env.values(), *spec.headers.values())]
        parts = {word for text in given for word in text.split() if len(word) >= _WORD}
        self._secrets = sorted({*given, *parts} - {""}, key=len, reverse=True)

    @property
    def last(self) -> str:
        """Its last line that is not empty: of a traceback, the error. Empty if there is none."""
        return self.tail.rpartition("\n")[2]

    def add(self, line: bytes) -> str:
        """Keep a line; answers it as it may be shown."""
        text = line.decode(errors="replace")
        for secret in self._secrets:  # before it is cut: half a secret would not be found
            text = text.replace(secret, _HIDDEN)
        shown = clean_text(text).strip("\n").rstrip()[:_LINE]
        if shown:
            self.tail = f"{self.tail}\n{shown}".strip("\n")[-KEPT_CHARACTERS:]
        return shown
