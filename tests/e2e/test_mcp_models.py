"""A model-driven turn with two tool calls side by side, from the official MCP client at all four doors."""

import uuid

import pytest

from tests.e2e.test_model_turns import PARALLEL
from tests.support.live import LiveServer
from tests.support.mcp import DOORS, HTTP_2025, HTTP_2026, call, connected, words
from tests.support.model_server import ModelServer

pytestmark = pytest.mark.requirement("E4", "R3")


@pytest.mark.parametrize("adapter", ["direct", "lite"])
@pytest.mark.parametrize("door", DOORS)
async def test_the_turn_of_an_agent_runs_to_its_answer(
    model_live_server: LiveServer, model_server: ModelServer, door: str, adapter: str
) -> None:
    model_server.play(*PARALLEL)
    async with connected(door, model_live_server.grpc, model_live_server.http) as client:
        known = await call(client, "kfm_personalities_list")
        assert f"{adapter}-react" in [one["name"] for one in known["personalities"]]
        message = {"text": "Add buy milk to my list and compute 17 * 3"}
        asked = {"personality": f"{adapter}-react", "input": [message]}
        begun = await call(client, "kfm_turn_start", {"turn": asked, "idempotency_key": uuid.uuid4().hex})
        ended = await client.call_tool(begun["next"]["tool"], begun["next"]["arguments"])
        assert "Seventeen times three is fifty-one" in words(ended)
        told = await call(client, "kfm_turn_get", {"turn_id": begun["turn_id"], "detail": "full"})
        keys = [step["definition"]["key"] for step in told["turn"]["steps"]]
        assert keys == ["m1", "m1.c1", "m1.c2", "m2"]
    assert model_server.count() == 2


@pytest.mark.parametrize("door", [HTTP_2026, HTTP_2025])
async def test_every_personality_is_a_prompt_that_says_which_call_to_make(
    model_live_server: LiveServer, door: str
) -> None:
    async with connected(door, model_live_server.grpc, model_live_server.http) as client:
        names = [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert "ask_direct_react" in names
        filled = await client.get_prompt("ask_direct_react", {"message": 'say "hi"'})
        text = filled.messages[0].content.text  # type: ignore[union-attr]
        assert '"personality":"direct-react"' in text
        assert 'say \\"hi\\"' in text
        with pytest.raises(Exception, match="'message' is missing"):
            await client.get_prompt("ask_direct_react", {})
        with pytest.raises(Exception, match="no prompt 'ask_nobody'"):
            await client.get_prompt("ask_nobody", {"message": "hi"})
