"""Resources and prompts of the conformance suite."""

import json
import re

from mcp_types import (
    BlobResourceContents,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    GetPromptRequestParams,
    GetPromptResult,
    ImageContent,
    InputRequiredResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
)

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
"""One pixel."""
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=="
"""One silent sample."""

RESOURCES = [
    Resource(uri="test://static-text", name="static-text", description="A text.", mime_type="text/plain"),
    Resource(
        uri="test://static-binary", name="static-binary", description="A picture.", mime_type="image/png"
    ),
    Resource(
        uri="test://watched-resource", name="watched-resource", description="Watched.", mime_type="text/plain"
    ),
]
TEMPLATES = [
    ResourceTemplate(
        name="template",
        uri_template="test://template/{id}/data",
        description="Data for an id.",
        mime_type="application/json",
    )
]
PROMPTS = [
    Prompt(name="test_simple_prompt", description="Without arguments."),
    Prompt(
        name="test_prompt_with_arguments",
        description="With two arguments.",
        arguments=[
            PromptArgument(name=n, description="An argument", required=True) for n in ("arg1", "arg2")
        ],
    ),
    Prompt(
        name="test_prompt_with_embedded_resource",
        description="With a resource.",
        arguments=[PromptArgument(name="resourceUri", description="What to embed", required=True)],
    ),
    Prompt(name="test_prompt_with_image", description="With a picture."),
    Prompt(name="test_input_required_result_prompt", description="Asks for its context first."),
]


def read(uri: str) -> ReadResourceResult | None:
    """One resource; None if it is not of the suite."""
    if uri == "test://static-text":
        text = "This is the content of the static text resource."
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type="text/plain", text=text)])
    if uri == "test://static-binary":
        return ReadResourceResult(contents=[BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)])
    if found := re.fullmatch(r"test://template/([^/]+)/data", uri):
        text = json.dumps({"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"})
        return ReadResourceResult(
            contents=[TextResourceContents(uri=uri, mime_type="application/json", text=text)]
        )
    return None


def prompt(params: GetPromptRequestParams) -> GetPromptResult | InputRequiredResult | None:
    """One prompt; None if it is not of the suite."""
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            return _messages(TextContent(text="This is a simple prompt for testing."))
        case "test_prompt_with_arguments":
            words = f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
            return _messages(TextContent(text=words))
        case "test_prompt_with_embedded_resource":
            held = TextResourceContents(
                uri=given.get("resourceUri", ""),
                mime_type="text/plain",
                text="Embedded resource content for testing.",
            )
            after = TextContent(text="Please process the embedded resource above.")
            return _messages(EmbeddedResource(resource=held), after)
        case "test_prompt_with_image":
            image = ImageContent(data=PNG, mime_type="image/png")
            return _messages(image, TextContent(text="Please analyze the image above."))
        case "test_input_required_result_prompt":
            answer = (params.input_responses or {}).get("user_context")
            if isinstance(answer, ElicitResult) and answer.content:
                return _messages(TextContent(text=f"With the context {answer.content.get('context')}."))
            return InputRequiredResult(
                input_requests={"user_context": form("What context should the prompt use?", context="string")}
            )
        case _:
            return None


def form(message: str, **fields: str) -> ElicitRequest:
    """The request for a form of required fields, by their types."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in fields.items()},
        "required": list(fields),
    }
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _messages(*parts: TextContent | ImageContent | EmbeddedResource) -> GetPromptResult:
    return GetPromptResult(messages=[PromptMessage(role="user", content=part) for part in parts])
