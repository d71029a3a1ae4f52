"""How much a model reads: an estimate that errs on the large side."""

from collections.abc import Sequence

from kfm_server.canonical import canonical_parsed
from kfm_server.ports.models import Message, ToolDefinition


def tokens_of(messages: Sequence[Message], tools: Sequence[ToolDefinition] = ()) -> int:
    """About how many tokens a model reads: three bytes of UTF-8 a token (for words too many, for digits and base64 too few), and eight a message."""
    size = 0
    for message in messages:
        size += len(message.text.encode()) + 24
        size += sum(len(use.arguments_json.encode()) + len(use.name) + 24 for use in message.tool_uses)
    for tool in tools:
        size += (
            len(tool.name)
            + len(tool.description.encode())
            + len(canonical_parsed(dict(tool.input_schema)))
            + 24
        )
    return -(-size // 3)
