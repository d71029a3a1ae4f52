"""Tools of the conformance suite."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitResult,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    Tool,
)

from kfm_mcp.bridge import Answer, Context, failed
from kfm_mcp.catalogue import Json
from kfm_mcp.conformance.content import PNG, WAV, form

Run = Callable[[Context, CallToolRequestParams], Awaitable[Answer]]

TOOLS: list[Tool] = []
RUN: dict[str, Run] = {}

_NOTHING: Json = {"type": "object", "properties": {}}
_PAUSE_S = 0.05


def _tool(name: str, schema: Json = _NOTHING) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        TOOLS.append(
            Tool(name=name, description=f"Fixture {name} of the conformance suite.", input_schema=schema)
        )
        RUN[name] = run
        return run

    return register


def _always(answer: Answer) -> Run:
    async def run(context: Context, params: CallToolRequestParams) -> Answer:
        return answer

    return run


def _fields(**fields: str) -> Json:
    properties = {name: {"type": kind} for name, kind in fields.items()}
    return {"type": "object", "properties": properties, "required": list(fields)}


def _result(*parts: ContentBlock) -> CallToolResult:
    return CallToolResult(content=list(parts))


def _text(words: str) -> CallToolResult:
    return _result(TextContent(text=words))


def _resource(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


for _name, _answer in {
    "test_simple_text": _text("This is a simple text response for testing."),
    "test_image_content": _result(ImageContent(data=PNG, mime_type="image/png")),
    "test_audio_content": _result(AudioContent(data=WAV, mime_type="audio/wav")),
    "test_embedded_resource": _result(
        _resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ),
    "test_multiple_content_types": _result(
        TextContent(text="Multiple content types test:"),
        ImageContent(data=PNG, mime_type="image/png"),
        _resource(
            "test://mixed-content-resource", "application/json", json.dumps({"test": "data", "value": 123})
        ),
    ),
    "test_error_handling": failed("This tool intentionally returns an error for testing"),
    "test_logging_tool": _text("Nothing was logged."),  # to a client that did not ask for it
}.items():
    _tool(_name)(_always(_answer))


@_tool("test_tool_with_logging")
async def logging(context: Context, params: CallToolRequestParams) -> Answer:
    """Three log messages."""
    for index, words in enumerate(
        ("Tool execution started", "Tool processing data", "Tool execution completed")
    ):
        if index:
            await anyio.sleep(_PAUSE_S)
        told = LoggingMessageNotification(params=LoggingMessageNotificationParams(level="info", data=words))
        await context.session.send_notification(told, context.request_id)
    return _text("Logged.")


@_tool("test_tool_with_progress")
async def progress(context: Context, params: CallToolRequestParams) -> Answer:
    """Three steps of progress."""
    for done in (0, 50, 100):
        if done:
            await anyio.sleep(_PAUSE_S)
        await context.session.report_progress(done, 100)
    return _text("Done.")


@_tool("test_reconnection")
async def reconnection(context: Context, params: CallToolRequestParams) -> Answer:
    """Closes its stream, and answers a little later."""
    if context.close_sse_stream is not None:
        await context.close_sse_stream()
        await anyio.sleep(_PAUSE_S)
    return _text("Answered after the stream was closed.")


@_tool("test_sampling", _fields(prompt="string"))
async def sampling(context: Context, params: CallToolRequestParams) -> Answer:
    """Asks the client's model, as the older era did."""
    asked = _sample(str((params.arguments or {}).get("prompt", "")), 100)
    given = await context.session.send_request(
        asked, CreateMessageResult, metadata=ServerMessageMetadata(related_request_id=context.request_id)
    )
    return _text(f"LLM response: {_words(given)}")


@_tool("test_elicitation", _fields(message="string"))
async def elicitation(context: Context, params: CallToolRequestParams) -> Answer:
    """Asks the client's user, as the older era did."""
    message = str((params.arguments or {}).get("message", ""))
    fields: Json = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    return await _elicit(context, message, fields, ["username", "email"], "User response: ")


@_tool("test_elicitation_sep1034_defaults")
async def defaults(context: Context, params: CallToolRequestParams) -> Answer:
    """A form with a default of every type."""
    fields: Json = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return await _elicit(context, "Please fill this in", fields, [], "Elicitation completed: ")


@_tool("test_elicitation_sep1330_enums")
async def enums(context: Context, params: CallToolRequestParams) -> Answer:
    """A form with every kind of choice."""
    options = ["option1", "option2", "option3"]
    titled = [
        {"const": f"value{n}", "title": t}
        for n, t in enumerate(("First Option", "Second Option", "Third Option"), 1)
    ]
    fields: Json = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return await _elicit(context, "Please fill this in", fields, [], "Elicitation completed: ")


_SCHEMA_2020: Json = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
_tool("json_schema_2020_12_tool", _SCHEMA_2020)(_always(_text("ok")))


@_tool(
    "test_custom_headers",
    {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
)
async def custom_headers(context: Context, params: CallToolRequestParams) -> Answer:
    """An argument that a header repeats."""
    return _text(str((params.arguments or {}).get("region", "")))


@_tool("test_input_required_result_elicitation")
async def round_elicitation(context: Context, params: CallToolRequestParams) -> Answer:
    """One question to the user."""
    name = _field(params, "user_name", "name")
    return _text(f"Hello, {name}!") if name else _ask(user_name=form("What is your name?", name="string"))


@_tool("test_input_required_result_sampling")
async def round_sampling(context: Context, params: CallToolRequestParams) -> Answer:
    """One question to the model."""
    given = (params.input_responses or {}).get("capital_question")
    if isinstance(given, CreateMessageResult):
        return _text(_words(given))
    return _ask(capital_question=_sample("What is the capital of France?", 100))


@_tool("test_input_required_result_list_roots")
async def round_roots(context: Context, params: CallToolRequestParams) -> Answer:
    """One question for roots."""
    given = (params.input_responses or {}).get("client_roots")
    if isinstance(given, ListRootsResult):
        return _text(", ".join(str(root.uri) for root in given.roots))
    return _ask(client_roots=ListRootsRequest())


@_tool("test_input_required_result_request_state")
async def round_state(context: Context, params: CallToolRequestParams) -> Answer:
    """A question that carries state."""
    return _confirmed(params, "state-ok")


@_tool("test_input_required_result_tampered_state")
async def round_tampered(context: Context, params: CallToolRequestParams) -> Answer:
    """The same; the gateway refuses state that was touched."""
    return _confirmed(params, "untouched")


@_tool("test_input_required_result_multiple_inputs")
async def round_several(context: Context, params: CallToolRequestParams) -> Answer:
    """Three questions at once."""
    given = params.input_responses or {}
    if params.request_state == "several" and {"user_name", "greeting", "client_roots"} <= set(given):
        return _text("All inputs came.")
    return _ask(
        "several",
        user_name=form("What is your name?", name="string"),
        greeting=_sample("Generate a greeting", 50),
        client_roots=ListRootsRequest(),
    )


@_tool("test_input_required_result_multi_round")
async def round_many(context: Context, params: CallToolRequestParams) -> Answer:
    """Two questions, one after the other."""
    state = params.request_state or ""
    if state.startswith("name:") and (color := _field(params, "step2", "color")):
        return _text(f"{state.removeprefix('name:')} likes {color}.")
    if state == "asked" and (name := _field(params, "step1", "name")):
        return _ask(f"name:{name}", step2=form("Step 2: What is your favorite color?", color="string"))
    return _ask("asked", step1=form("Step 1: What is your name?", name="string"))


@_tool("test_input_required_result_capabilities")
async def round_capabilities(context: Context, params: CallToolRequestParams) -> Answer:
    """Asks only for what the client can do."""
    client = context.session.client_params
    can = client.capabilities if client is not None else None
    if params.input_responses:
        return _text("Thank you.")
    requests: dict[str, Any] = {}
    if can is not None and can.elicitation is not None:
        requests["user_name"] = form("What is your name?", name="string")
    if can is not None and can.sampling is not None:
        requests["greeting"] = _sample("Generate a greeting", 50)
    return _ask(**requests) if requests else _text("The client can be asked nothing.")


@_tool("test_streaming_elicitation")
async def streaming(context: Context, params: CallToolRequestParams) -> Answer:
    """Progress, and then a question: as the result, never as a request on the stream."""
    await context.session.report_progress(1, 2)
    return await round_elicitation(context, params)


@_tool("test_missing_capability")
async def missing_capability(context: Context, params: CallToolRequestParams) -> Answer:
    """Needs sampling."""
    client = context.session.client_params
    if client is None or client.capabilities.sampling is None:
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            "The client must offer sampling.",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return _text("ok")


def _confirmed(params: CallToolRequestParams, words: str) -> Answer:
    if params.request_state is None:
        return _ask(words, confirm=form("Please confirm", ok="boolean"))
    if params.request_state != words:
        raise MCPError(INVALID_PARAMS, "The state is not the one that was given.")
    return _text(words)


def _ask(state: str | None = None, /, **requests: Any) -> InputRequiredResult:
    return InputRequiredResult(input_requests=requests, request_state=state)


def _field(params: CallToolRequestParams, question: str, name: str) -> Any:
    given = (params.input_responses or {}).get(question)
    return (given.content or {}).get(name) if isinstance(given, ElicitResult) else None


def _sample(words: str, most: int) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(text=words))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=most))


def _words(given: CreateMessageResult) -> str:
    return given.content.text if isinstance(given.content, TextContent) else ""


async def _elicit(
    context: Context, message: str, fields: Json, required: list[str], lead: str
) -> CallToolResult:
    schema: Json = {"type": "object", "properties": fields, "required": required}
    given = await context.session.elicit_form(message, schema, context.request_id)
    return _text(f"{lead}action={given.action}, content={json.dumps(given.content or {})}")
