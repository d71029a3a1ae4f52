"""What a tool of an MCP server answered, as a JSON value: texts and structured content; the rest is named and left out."""

from typing import Any

from mcp_types import CallToolResult, EmbeddedResource, ResourceLink, TextContent, TextResourceContents

from kfm_server.ports.tools import ToolError

_MAX_ERROR = 4000


def value_of(source: str, result: CallToolResult) -> dict[str, Any]:
    """`data`: its structured content, if there is any, else `text`: its texts, a line break between them.

    `links`: resources that it names; `left_out`: kinds of content that are not passed on. Raises ToolError for a failure.
    """
    texts: list[str] = []
    links: list[str] = []
    left_out: list[str] = []
    for part in result.content:
        if isinstance(part, TextContent):
            texts.append(part.text)
        elif isinstance(part, EmbeddedResource) and isinstance(part.resource, TextResourceContents):
            texts.append(part.resource.text)
        elif isinstance(part, ResourceLink):
            links.append(str(part.uri))
        else:
            left_out.append(part.type)
    text = "\n".join(texts)
    if result.is_error:
        raise ToolError(text[:_MAX_ERROR].strip() or f"The call failed; {source} does not say why.")
    data = result.structured_content
    value: dict[str, Any] = {"text": text} if data is None else {"data": data}
    if links:
        value["links"] = links
    if left_out:
        value["left_out"] = sorted(set(left_out))
    return value
