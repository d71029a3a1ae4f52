"""A turn from the official Python MCP client: over stdio and over HTTP, in both eras of the protocol."""

import asyncio
import json
import uuid
from typing import Any

import pytest
from jsonschema_rs import validator_for
from xenocomm import Client, TurnState
from xenocomm._gen.types import WaitReason

from tests.support.live import LiveServer
from tests.support.mcp import DOORS, HTTP_2026, STDIO_2026, call, connected, refusal, words
from tests.support.plans import call as step
from tests.support.plans import document, question, started, until, waits

pytestmark = pytest.mark.requirement("E4")

DEFAULT_TOOLS = [
    "kfm_personalities_list",
    "kfm_turn_start",
    "kfm_turn_wait",
    "kfm_turn_get",
    "kfm_turns_list",
    "kfm_turn_events",
    "kfm_turn_cancel",
]


def asking(text: str = "what is (17 + 5) * 3 / 2 ?") -> dict[str, Any]:
    """Arguments of a start that is like no other."""
    return {"turn": {"input": [{"text": text}]}, "idempotency_key": uuid.uuid4().hex}


def planned(*steps: dict[str, Any]) -> dict[str, Any]:
    """A start that brings its plan."""
    return {"turn": {"input": [{"data_json": document(*steps)}]}, "idempotency_key": uuid.uuid4().hex}


@pytest.mark.parametrize("door", DOORS)
async def test_a_turn_is_started_waited_for_and_read_at_every_door(
    live_server: LiveServer, door: str
) -> None:
    async with connected(door, live_server.grpc, live_server.http) as client:
        listed = await client.list_tools()
        assert [tool.name for tool in listed.tools] == DEFAULT_TOOLS
        begun = await call(client, "kfm_turn_start", asking())
        then = begun["next"]
        ended = await call(client, then["tool"], then["arguments"])
        assert ended["turn"]["outcome"] == "OUTCOME_SUCCEEDED"
        assert ended["turn"]["output"][0]["text"] == "(17 + 5) * 3 / 2 = 33"
        assert ended["next"] == []
        for tool in listed.tools:
            if tool.name in ("kfm_turn_wait", "kfm_turn_get", "kfm_turn_events"):
                told = await call(client, tool.name, {"turn_id": begun["turn_id"], "detail": "full"})
                assert validator_for(tool.output_schema).is_valid(told)
                assert set(told) <= set((tool.output_schema or {})["properties"])
        rows = await call(client, "kfm_turns_list", {"session_id": begun["session_id"]})
        assert [row["turn_id"] for row in rows["turns"]] == [begun["turn_id"]]


@pytest.mark.parametrize("door", DOORS)
async def test_what_is_wrong_is_said_in_words_that_a_model_can_act_on(
    live_server: LiveServer, door: str
) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("kfm_turn_start", {}, "'turn' is missing. Example:"),
        ("kfm_turn_start", {"turn": {"input": "hi"}}, "turn.input: it must be a list, not hi"),
        ("kfm_turn_start", {"turn": {"input": [{"txt": "hi"}]}}, 'there is no field "txt"'),
        ("kfm_turn_start", {"turn": {"input": []}}, "turn.input"),
        (
            "kfm_turn_start",
            {"turn": {"input": [{"text": "x"}]}, "key": "k"},
            "no argument 'key'. Known: turn, idempotency_key",
        ),
        ("kfm_turn_get", {"turn_id": "turn_none"}, "kfm_turns_list shows the turns that exist"),
        ("kfm_turn_get", {"turn_id": 7}, "turn_id"),
        ("kfm_turn_get", {"turn_id": "turn_none", "detail": "all"}, "detail must be concise or full"),
        ("kfm_turn_get", {"turn_id": "turn_none", "output_offset": -1}, "output_offset must be 0 or more"),
        ("kfm_turns_list", {"state": "RUNNING"}, "state"),
        ("kfm_step_answer", {}, "start the bridge with --group steps"),
    ]
    async with connected(door, live_server.grpc, live_server.http) as client:
        for tool, arguments, said in wrong:
            assert said in await refusal(client, tool, arguments), (tool, arguments)


@pytest.mark.parametrize("door", DOORS)
async def test_a_wait_with_progress_fails_in_the_same_words_as_one_without(
    live_server: LiveServer, door: str
) -> None:
    async def progress(done: float, total: float | None, message: str | None) -> None: ...

    async with connected(door, live_server.grpc, live_server.http) as client:
        unknown = {"turn_id": "turn_none"}
        said = await refusal(client, "kfm_turn_wait", unknown)
        answer = await client.call_tool("kfm_turn_wait", unknown, progress_callback=progress)
    assert "kfm_turns_list shows the turns that exist" in said
    assert answer.is_error
    assert words(answer) == said


async def test_a_tool_that_does_not_exist_is_an_error_of_the_protocol(live_server: LiveServer) -> None:
    async with connected(HTTP_2026, live_server.grpc, live_server.http) as client:
        with pytest.raises(Exception, match="no tool 'kfm_nothing'"):
            await client.call_tool("kfm_nothing", {})


async def test_read_only_offers_what_changes_nothing_and_groups_add_tools(live_server: LiveServer) -> None:
    async with connected(STDIO_2026, live_server.grpc, "", "--read-only", "--group", "steps") as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == [n for n in DEFAULT_TOOLS if n not in ("kfm_turn_start", "kfm_turn_cancel")]
        assert "--read-only" in await refusal(client, "kfm_turn_start", asking())
    async with connected(STDIO_2026, live_server.grpc, "", "--group", "steps") as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == [*DEFAULT_TOOLS, "kfm_step_answer", "kfm_step_settle"]


async def test_a_turn_that_waits_for_a_person_names_the_exact_call_that_answers_it(
    live_server: LiveServer, live: Client
) -> None:
    async with connected(HTTP_2026, live_server.grpc, live_server.http) as client:
        begun = await call(client, "kfm_turn_start", planned(question("ask")))
        waiting = await client.call_tool("kfm_turn_wait", {"turn_id": begun["turn_id"]})
        assert "--group steps" in words(waiting)
        assert "KFM_MCP_GROUP=steps" in words(waiting)
        assert f"kfm turn answer {begun['turn_id']} ask" in words(waiting)
    async with connected(STDIO_2026, live_server.grpc, "", "--group", "steps") as client:
        (then,) = (await call(client, "kfm_turn_get", {"turn_id": begun["turn_id"]}))["next"]
        assert "May it?" in then["why"]
        then["arguments"]["output_json"] = '"yes"'
        answered = await call(client, then["tool"], then["arguments"])
        repeated = await call(client, then["tool"], then["arguments"])
        assert repeated["turn"]["turn_id"] == answered["turn"]["turn_id"]
        ended = await call(client, "kfm_turn_wait", {"turn_id": begun["turn_id"]})
        assert ended["turn"]["outcome"] == "OUTCOME_SUCCEEDED"
    assert (await live.turns.get(begun["turn_id"])).state == TurnState.FINISHED


async def test_a_step_of_unknown_outcome_is_settled_with_the_call_that_the_answer_names(
    live_server: LiveServer, live: Client
) -> None:
    hold = str(live_server.home / "never-opened")
    async with connected(STDIO_2026, live_server.grpc, "", "--group", "steps") as client:
        begun = await call(
            client, "kfm_turn_start", planned(step("once", "ledger_once", timeout_ms=300, hold=hold))
        )
        waiting = await call(client, "kfm_turn_wait", {"turn_id": begun["turn_id"]})
        assert waiting["turn"]["wait_reason"] == "WAIT_REASON_NEEDS_REVIEW"
        (then,) = waiting["next"]
        choices = then["arguments"]["settle_as"].split("|")
        assert choices == ["SETTLE_AS_SUCCEEDED", "SETTLE_AS_FAILED", "SETTLE_AS_RETRY"]
        await call(client, then["tool"], {**then["arguments"], "settle_as": choices[0], "output_json": "{}"})
        ended = await call(client, "kfm_turn_wait", {"turn_id": begun["turn_id"]})
        assert ended["turn"]["outcome"] == "OUTCOME_SUCCEEDED"


@pytest.mark.parametrize("door", ["stdio 2026-07-28", "stdio 2025-11-25"])
async def test_a_client_that_shows_forms_is_asked_and_its_answer_goes_to_the_step(
    live_server: LiveServer, door: str
) -> None:
    from mcp_types import ElicitResult

    asked: list[str] = []

    async def form(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"answer": "go on"})

    async with connected(door, live_server.grpc, "", "--group", "steps", elicitation_callback=form) as client:
        begun = await call(client, "kfm_turn_start", planned(question("ask")))
        while (told := await call(client, "kfm_turn_wait", {"turn_id": begun["turn_id"]}))["next"]:
            pass
    assert asked == ["May it?"]
    assert '"go on"' in json.dumps(told["turn"]["output"]).replace("\\", "")


@pytest.mark.parametrize("door", ["stdio 2026-07-28", "stdio 2025-11-25"])
async def test_a_form_that_is_declined_leaves_the_turn_waiting(live_server: LiveServer, door: str) -> None:
    from mcp_types import ElicitResult

    async def form(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="decline")

    async with connected(door, live_server.grpc, "", "--group", "steps", elicitation_callback=form) as client:
        begun = await call(client, "kfm_turn_start", planned(question("ask")))
        told = await call(client, "kfm_turn_wait", {"turn_id": begun["turn_id"]})
        assert told["turn"]["wait_reason"] == "WAIT_REASON_HUMAN"
        assert told["next"][0]["tool"] == "kfm_step_answer"
        await call(client, "kfm_turn_cancel", {"turn_id": begun["turn_id"]})


@pytest.mark.parametrize("door", DOORS)
async def test_progress_tells_of_steps_while_a_call_waits(
    live_server: LiveServer, live: Client, door: str
) -> None:
    gate = live_server.home / f"gate-{uuid.uuid4()}"
    told: list[str] = []
    seen = asyncio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append(message or "")
        seen.set()

    async with connected(door, live_server.grpc, live_server.http) as client:
        held = planned(step("held", "ledger_pure", hold=str(gate)))
        begun = await call(client, "kfm_turn_start", held)

        async def open_when_told() -> None:
            async with asyncio.timeout(30):
                await seen.wait()
            gate.touch()

        async with asyncio.TaskGroup() as group:
            group.create_task(open_when_told())
            ended = await call(
                client, "kfm_turn_wait", {"turn_id": begun["turn_id"]}, progress_callback=progress
            )
        assert ended["turn"]["outcome"] == "OUTCOME_SUCCEEDED"
    assert "step held started" in told


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("attached", [False, True])
async def test_cancelling_a_wait_cancels_the_turn_only_if_it_was_attached(
    live_server: LiveServer, live: Client, door: str, attached: bool
) -> None:
    gate = live_server.home / f"gate-{uuid.uuid4()}"
    seen = asyncio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.set()

    async with connected(door, live_server.grpc, live_server.http) as client:
        begun = await call(client, "kfm_turn_start", planned(step("held", "ledger_pure", hold=str(gate))))
        turn = live.turns.attach(begun["turn_id"])
        await until(turn, started("held"))
        arguments = {"turn_id": begun["turn_id"], "attached": attached}
        wait = asyncio.create_task(client.call_tool("kfm_turn_wait", arguments, progress_callback=progress))
        async with asyncio.timeout(30):
            await seen.wait()
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
        if attached:
            ended = await turn.result(timeout=20, check=False)
            assert ended.outcome.name == "CANCELLED"
        else:
            await call(client, "kfm_turns_list")
            gate.touch()
            assert (await turn.result(timeout=20)).state == TurnState.FINISHED


async def test_a_read_only_bridge_waits_but_not_attached_because_that_may_cancel(
    live_server: LiveServer, live: Client
) -> None:
    turn = await live.turns.start("what is 2 + 3?")
    async with connected(STDIO_2026, live_server.grpc, "", "--read-only") as client:
        arguments = {"turn_id": turn.id}
        said = await refusal(client, "kfm_turn_wait", {**arguments, "attached": True})
        assert "--read-only" in said
        ended = await call(client, "kfm_turn_wait", arguments)
    assert ended["turn"]["outcome"] == "OUTCOME_SUCCEEDED"


@pytest.mark.requirement("R8")
async def test_a_long_answer_is_read_in_pieces_and_every_piece_says_how_to_go_on(
    live_server: LiveServer, live: Client
) -> None:
    long = "0123456789 " * 12_000
    async with connected(HTTP_2026, live_server.grpc, live_server.http) as client:
        begun = await call(client, "kfm_turn_start", planned(question("ask")))
        turn = live.turns.attach(begun["turn_id"])
        await until(turn, waits(WaitReason.HUMAN))
        await turn.answer("ask", json.dumps(long))
        told = await client.call_tool("kfm_turn_wait", {"turn_id": begun["turn_id"]})
        read, offset, sizes = "", 0, [len(told.model_dump_json())]
        while told.structured_content["next"]:
            (then,) = told.structured_content["next"]
            read += told.structured_content["turn"]["output"][0]["text"]
            assert "truncated" in words(told)
            assert then["arguments"]["output_offset"] == len(read) > offset
            offset = len(read)
            told = await client.call_tool(then["tool"], then["arguments"])
            sizes.append(len(told.model_dump_json()))
        read += told.structured_content["turn"]["output"][0]["text"]
        assert long in read.replace("\\", "")
        assert max(sizes) < 75_000  # three characters are at least a token: 25 000 of them
        events = await client.call_tool("kfm_turn_events", {"turn_id": begun["turn_id"], "detail": "full"})
        assert len(events.model_dump_json()) < 75_000


async def test_turns_are_resources_and_their_ids_complete(live_server: LiveServer) -> None:
    from mcp_types import ResourceTemplateReference

    async with connected(HTTP_2026, live_server.grpc, live_server.http) as client:
        begun = await call(client, "kfm_turn_start", asking())
        await call(client, "kfm_turn_wait", {"turn_id": begun["turn_id"]})
        uri = f"kfm://turns/{begun['turn_id']}"
        assert uri in [str(resource.uri) for resource in (await client.list_resources()).resources]
        held = json.loads((await client.read_resource(uri)).contents[0].text)  # type: ignore[union-attr]
        assert held["turn"]["outcome"] == "OUTCOME_SUCCEEDED"
        events = json.loads((await client.read_resource(f"{uri}/events")).contents[0].text)  # type: ignore[union-attr]
        assert [e["sequence"] for e in events["events"]] == [str(n) for n in range(1, 7)]
        with pytest.raises(Exception, match="Resource not found"):
            await client.read_resource("kfm://turns/turn_none")
        template = ResourceTemplateReference(uri="kfm://turns/{turn_id}")
        found = await client.complete(template, {"name": "turn_id", "value": begun["turn_id"][:-2]})
        assert begun["turn_id"] in found.completion.values
