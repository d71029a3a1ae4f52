"""Scripts: what they may say, and what the player makes of them."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
from kfm_server.ports.models import Message, ModelRequest, ToolDefinition, ToolUse
from kfm_server.providers.json_schema import example, strict_problem, told_parameters
from kfm_server.providers.player import NoRule, Played, Player
from kfm_server.providers.scripts import (
    FailureKind,
    Rule,
    ScriptedFailure,
    ScriptedReply,
    ScriptedTool,
    ScriptInvalid,
    load_script,
    parse_script,
)
from kfm_server.tools import BUILTIN_TOOLS

TOOLS = tuple(
    ToolDefinition(tool.spec.name, tool.spec.description, tool.spec.input_schema)
    for tool in BUILTIN_TOOLS.values()
)


def demo(*messages: Message, tools: tuple[ToolDefinition, ...] = TOOLS, schema: Any = None) -> Played:
    return Player(load_script("demo")).chat(ModelRequest("m", messages, tools, schema))


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ([], "script"),
        ({}, "rules"),
        ({"rules": [1]}, "rules[0]"),
        ({"rules": [{}]}, "rules[0]"),
        ({"rules": [{"reply": {}, "usr": "x"}]}, "'usr'"),
        ({"rules": [{"reply": {"txt": "x"}}]}, "rules[0].reply"),
        ({"rules": [{"user": "(", "reply": {}}]}, "rules[0].user"),
        ({"rules": [{"step": "0", "reply": {}}]}, "rules[0].step"),
        ({"rules": [{"call": "speak", "reply": {}}]}, "rules[0].call"),
        ({"rules": [{"reply": {"repeat": -1}}]}, "rules[0].reply.repeat"),
        ({"rules": [{"reply": {"repeat": True}}]}, "rules[0].reply.repeat"),
        ({"rules": [{"reply": {"chunk_chars": 0}}]}, "rules[0].reply"),
        ({"rules": [{"reply": {}}, {"reply": {"json": {"a": "\ud800"}}}]}, "rules[1] holds \\ud800"),
        ({"rules": [{"reply": {"tools": [{}]}}]}, "rules[0].reply.tools[0]"),
        ({"rules": [{"failure": {"kind": "bang"}}]}, "rules[0].failure.kind"),
        ({"rules": [{"failure": {"kind": "status", "status": 200}}]}, "rules[0].failure.status"),
        ({"rules": [{"failure": {"kind": "status", "first": 1}}]}, "rules[0]"),
        ({"rules": [{"reply": {}, "failure": {"kind": "status", "after_chunks": 1}}]}, "rules[0].failure"),
    ],
)
def test_a_script_that_is_wrong_is_refused_with_its_place(document: Any, place: str) -> None:
    with pytest.raises(ScriptInvalid) as caught:
        parse_script(document)
    assert place in str(caught.value)


def test_a_script_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"rules": [{"reply": {"text": "hi"}}]}))
    assert Player(load_script(str(path))).chat(ModelRequest("m", ())).text == "hi"
    path.write_text("{")
    with pytest.raises(ScriptInvalid, match="no JSON"):
        load_script(str(path))
    path.write_text('{"rules": [{"reply": {"text": "\\ud800"}}]}')
    with pytest.raises(ScriptInvalid, match=r"script\.json: rules\[0\] holds \\ud800"):
        load_script(str(path))
    path.write_text("[" * 100_000)
    with pytest.raises(ScriptInvalid, match=r"script\.json is nested"):
        load_script(str(path))
    with pytest.raises(ScriptInvalid, match="cannot be read"):
        load_script(str(tmp_path / "missing.json"))


def test_the_same_call_gets_the_same_reply_and_another_call_other_ids() -> None:
    player = Player(parse_script({"rules": [{"reply": {"tools": [{"name": "calculator"}]}}]}))
    one, again = (player.chat(ModelRequest("m", (Message("user", "a"),))) for _ in range(2))
    other = player.chat(ModelRequest("m", (Message("user", "b"),)))
    assert one == again
    assert one.tools[0].id != other.tools[0].id


def test_a_call_that_no_rule_fits_is_told() -> None:
    with pytest.raises(NoRule):
        Player(parse_script({"rules": [{"model": "^big$", "reply": {}}]})).chat(ModelRequest("small", ()))


def test_a_reply_comes_in_as_many_chunks_as_asked() -> None:
    player = Player(parse_script({"rules": [{"reply": {"text": "abcdefghij", "chunks": 5}}]}))
    assert [p.text for p in player.chat(ModelRequest("m", ())).pieces()] == ["ab", "cd", "ef", "gh", "ij"]


def test_templates_do_not_break_out_of_the_arguments() -> None:
    rule = {"user": "say (?P<what>.+)", "reply": {"tools": [{"name": "f", "arguments": {"a": "{{what}}"}}]}}
    request = ModelRequest("m", (Message("user", 'say "}, {{last_user}}'),))
    (use,) = Player(parse_script({"rules": [rule]})).chat(request).tools
    assert json.loads(use.arguments_json) == {"a": '"}, {{last_user}}'}


@pytest.mark.parametrize(
    "asked",
    [
        "add milk to my todos and compute 17 * 3",
        "Please add milk and then calculate 17 * 3.",
        'add "milk" to the todo list, and what is 17 * 3?',
    ],
)
def test_the_demo_calls_two_tools_at_once_and_sums_up(asked: str) -> None:
    user = Message("user", asked)
    played = demo(user)
    calls = {use.name: json.loads(use.arguments_json) for use in played.tools}
    assert calls == {"calculator": {"expression": "17 * 3"}, "todo_store": {"action": "add", "title": "milk"}}
    schemas = {tool.name: dict(tool.input_schema) for tool in TOOLS}
    for name, arguments in calls.items():
        jsonschema_rs.validate(schemas[name], arguments)
    results = [
        Message("tool", json.dumps({"text": f"result {i}"}), tool_use_id=u.id)
        for i, u in enumerate(played.tools)
    ]
    assert demo(user, Message("assistant", "", played.tools), *results).text == "Done. result 0 result 1"


def test_the_demo_plans_and_sums_up_what_the_plan_found() -> None:
    plan = {"type": "object", "properties": {"steps": {"type": "array"}}, "required": ["steps"]}
    system, user = Message("system", "Plan how to answer."), Message("user", "add milk and compute 17 * 3")
    steps = json.loads(demo(system, user, schema=plan).text)["steps"]
    assert [(s["tool"], s["arguments"]) for s in steps] == [
        ("calculator", {"expression": "17 * 3"}),
        ("todo_store", {"action": "add", "title": "milk"}),
    ]
    found = Message(
        "user", 'Results:\ns1: calculator\n-> {"text":"17 * 3 = 51"}\ns2: todo_store\n-> {"text":"Added."}'
    )
    assert demo(user, found).text == "Done. 17 * 3 = 51 Added."


def test_the_demo_answers_a_sentence_to_everything_else() -> None:
    assert demo(Message("user", "good morning")).text.endswith("You said: good morning")
    assert demo(Message("user", "what is 2 + 2?"), tools=()).tools == ()
    assert demo(Message("user", "what is 2 + 2?")).tools[0] == ToolUse(
        demo(Message("user", "what is 2 + 2?")).tools[0].id, "calculator", '{"expression": "2 + 2"}'
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]},
        {"type": "array", "minItems": 2, "items": {"enum": ["x", "y"]}},
        {"type": "object", "required": ["s"], "properties": {"s": {"$ref": "#/$defs/S"}}, "$defs": {"S": {"type": "string", "minLength": 9}}},
        {"anyOf": [{"type": "null"}, {"type": "string"}]},
        {"type": ["number", "null"], "exclusiveMinimum": 2},
        {"const": {"deep": [1]}},
        {"type": "string", "maxLength": 2},
        {"type": "boolean"},
        {"type": "integer", "maximum": -4},
    ],
)  # fmt: skip
def test_an_example_fits_its_schema(schema: dict[str, Any]) -> None:
    jsonschema_rs.validate(schema, example(schema))
    assert json.loads(demo(Message("user", "plan"), schema=schema).text) == example(schema)


def test_a_schema_that_names_itself_has_an_end() -> None:
    node: dict[str, Any] = {"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#"}}}
    assert json.dumps(example(node)).count("next") < 50
    assert strict_problem({**node, "additionalProperties": False}) == ""


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "array"}, "root"),
        ({"type": "object", "properties": {"a": {}}, "required": []}, "additionalProperties"),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, "required"),
        ({"type": "object", "additionalProperties": False, "allOf": []}, "allOf"),
        (
            {"type": "object", "additionalProperties": False, "required": ["a"],
             "properties": {"a": {"type": "array", "items": {"type": "object"}}}},
            ".a[]",
        ),
    ],
)  # fmt: skip
def test_a_schema_that_strict_output_does_not_take_is_told_with_its_place(
    schema: dict[str, Any], problem: str
) -> None:
    assert problem in strict_problem(schema)


def test_providers_are_told_what_they_take_of_a_tools_schema() -> None:
    (todo,) = (tool.input_schema for tool in TOOLS if tool.name == "todo_store")
    assert "allOf" in todo and "allOf" not in told_parameters(todo)
    assert told_parameters(todo)["properties"] == todo["properties"]


def test_every_example_of_the_page_about_scripts_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "model-scripts.md").read_text(encoding="utf-8")
    examples = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 5
    for example_ in examples:
        assert Player(parse_script(json.loads(example_))).chat(ModelRequest("m", (Message("user", "hi"),)))
    _, react, plan, _, failing = (Player(parse_script(json.loads(one))) for one in examples)
    ask = ModelRequest("m", (Message("user", "Add milk and compute 2 + 3"),), TOOLS)
    assert [tool.name for tool in react.chat(ask).tools] == ["todo_store", "calculator"]
    told = Message("system", "Plan how to answer"), Message("user", "compute 2 + 3")
    assert '"2 + 3"' in plan.chat(ModelRequest("m", told, output_schema={"type": "object"})).text
    busy = ModelRequest("m", (Message("user", "busy?"),))
    assert [failing.chat(busy).failure is not None for _ in range(2)] == [True, False]


def test_the_page_about_scripts_names_every_word_of_them() -> None:
    page = (Path(__file__).parents[3] / "docs" / "model-scripts.md").read_text(encoding="utf-8")
    kinds = (Rule, ScriptedReply, ScriptedTool, ScriptedFailure)
    words = {field.name for kind in kinds for field in fields(kind)} | {*get_args(FailureKind)}
    assert not [word for word in words if f"`{word}`" not in page]
