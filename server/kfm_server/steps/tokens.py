"""How much a model will read at most: a bound for windows and limits; what a call has used is estimated in ports.models."""

from collections.abc import Sequence
from typing import Final

from kfm_server.ports.models import Message, ToolDefinition, prompt_bytes

BYTES_A_TOKEN: Final = 3


def tokens_of(messages: Sequence[Message], tools: Sequence[ToolDefinition] = ()) -> int:
    """A token for three bytes: for words too many, for digits and base64 too few."""
    return -(-prompt_bytes(messages, tools) // BYTES_A_TOKEN)
