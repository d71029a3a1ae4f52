"""The tool `code`: Python of a model, in the sandbox that the tool was given and in no other."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.sandbox import Sandbox
from kfm_server.ports.tools import ToolCall, ToolError
from kfm_server.sandbox.interpreter import InterpreterSandbox
from kfm_server.tools.code import MAX_SOURCE, Code
from kfm_server.tools.registry import ToolRegistry

pytestmark = [pytest.mark.requirement("T1", "K3"), pytest.mark.timeout(60)]


def code_in(sandbox: Sandbox) -> Code:
    async def chosen() -> Sandbox:
        return sandbox

    tool = Code(sandbox.tier)
    tool.bind(chosen)
    return tool


@pytest.fixture
async def tool() -> AsyncGenerator[Code]:
    async with InterpreterSandbox.open(size=1) as sandbox:
        yield code_in(sandbox)


async def call(tool: Code, source: str, **inputs: Any) -> Any:
    made = ToolCall("key", 1, 1, "tenant", "user", lambda told: None)
    return await tool.call({"source": source, "inputs": inputs}, made)


async def test_a_snippet_answers_with_its_value_and_what_it_printed(tool: Code) -> None:
    answer = await call(tool, "print('adding')\nsum(numbers)", numbers=[1, 2, 3])
    assert answer == {"value": 6, "printed": "adding\n"}


async def test_an_integer_too_large_for_json_comes_as_its_digits(tool: Code) -> None:
    assert (await call(tool, "{'big': [2 ** 100], 'small': -(2 ** 62)}"))["value"] == {
        "big": [str(2**100)],
        "small": -(2**62),
    }


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("x = ", "SyntaxError"),
        ("open('/etc/passwd').read()", "PermissionError"),
        ("import socket", "ModuleNotFoundError"),
        ("import subprocess", "ModuleNotFoundError"),
        ("x = 'a' * 10 ** 9", "memory_bytes="),
        ("print('x' * 100_000)", "output_bytes="),
        ("{1, 2}", "no JSON"),
        ("().__class__.__base__.__subclasses__()", "AttributeError"),
    ],
)
async def test_what_goes_wrong_is_told_to_the_model(tool: Code, source: str, told: str) -> None:
    with pytest.raises(ToolError, match=told) as failed:
        await call(tool, source)
    assert not failed.value.retryable


async def test_a_limit_tells_what_was_printed_by_then(tool: Code) -> None:
    with pytest.raises(ToolError, match=r"output_bytes=65536.*so far"):
        await call(tool, "print('so far')\n'x' * 100_000")


async def test_two_calls_share_nothing(tool: Code) -> None:
    await asyncio.gather(*(call(tool, f"mine = {n}") for n in range(4)))
    with pytest.raises(ToolError, match="NameError"):
        await call(tool, "mine")


async def test_a_closed_sandbox_runs_nothing_anywhere_else() -> None:
    sandbox = InterpreterSandbox(size=1)
    await sandbox.close()
    with pytest.raises(ToolError, match="closed"):
        await call(code_in(sandbox), "1")


async def test_it_is_pure_and_its_schema_refuses_what_is_no_call(tool: Code) -> None:
    assert tool.spec.effect == types.EFFECT_CONTRACT_PURE
    assert not tool.spec.quick
    registry = ToolRegistry([Code()])
    assert list(registry.catalogue) == ["code"]
    schema = tool.spec.input_schema
    assert schema["additionalProperties"] is False
    assert schema["properties"]["source"]["maxLength"] == MAX_SOURCE
