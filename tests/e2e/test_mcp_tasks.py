"""Turns as tasks, for the official Python client with a host's part of the extension: over stdio and over HTTP."""

import asyncio
import contextlib
import shutil
import tempfile
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from pathlib import Path
from typing import Any, Literal

import mcp_types.jsonrpc as codes
import pytest
from jsonschema_rs import validator_for
from mcp.client.client import Client as McpClient
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ElicitResult, Request, RequestParams, Result
from pydantic import ConfigDict
from xenocomm import Client
from xenocomm._gen.types import Outcome, WaitReason

from tests.e2e.conftest import TOOLS
from tests.support.live import LiveServer
from tests.support.mcp import HTTP_2025, HTTP_2026, STDIO_2026, call, connected
from tests.support.plans import SECONDS, document, question, until, waits
from tests.support.plans import call as step

pytestmark = pytest.mark.requirement("E4")

EXTENSION = "io.modelcontextprotocol/tasks"
BOTH = pytest.mark.parametrize("door", [STDIO_2026, HTTP_2026])


class Created(Result):
    """What a host knows of a task that was begun."""

    model_config = ConfigDict(extra="allow")
    result_type: Literal["task"] = "task"
    task_id: str


class Told(Result):
    """Whatever is answered about a task."""

    model_config = ConfigDict(extra="allow")


class Params(RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


class Call(Request[Params, str]):
    name_param = "taskId"


async def ask(session: Any, method: str, task_id: str, **responses: Any) -> dict[str, Any]:
    """One call about a task: `responses` are for tasks/update."""
    params = Params(task_id=task_id, input_responses=responses if method == "tasks/update" else None)
    told = await session.send_request(Call(method=method, params=params), Told)
    assert told.model_extra["resultType"] == "complete"
    return told.model_extra


class Host(ClientExtension):
    """A host that polls a task to its end and fills every form in."""

    identifier = EXTENSION

    def __init__(self, **answer: str) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Created, resolve=self.resolve)]

    async def resolve(self, created: Created, context: ClaimContext) -> CallToolResult:
        async with asyncio.timeout(SECONDS):
            while (told := await ask(context.session, "tasks/get", created.task_id))["status"] != "completed":
                for name, asked in told.get("inputRequests", {}).items():
                    self.asked.append(asked["params"]["message"])
                    form = {"action": "accept", "content": self.answer}
                    await ask(context.session, "tasks/update", created.task_id, **{name: form})
        return CallToolResult.model_validate(told["result"])


@pytest.fixture(scope="module")
def server() -> Generator[LiveServer]:
    """A server that may be killed, whose /mcp answers steps."""
    home = Path(tempfile.mkdtemp(prefix="kfm-tasks-"))
    home.chmod(0o755)  # Postgres runs as another user when we are root
    environment = {"LEDGER_FILE": str(home / "ledger.jsonl"), "KFM_MCP_GROUP": "steps"}
    server = LiveServer(home, tools=TOOLS, environment=environment)
    try:
        server.start()
        yield server
        assert server.stop() == 0, server.log_tail()
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def sdk(server: LiveServer) -> AsyncIterator[Client]:
    async with Client(server.grpc, timeout=15) as client:
        yield client


async def form(context: Any, params: Any) -> ElicitResult:
    raise AssertionError("a task's forms come with tasks/get")


@contextlib.asynccontextmanager
async def host(
    server: LiveServer, door: str, extension: Host | None = None, **how: Any
) -> AsyncGenerator[McpClient]:
    """A client that declares the extension, and that it shows forms."""
    group = () if door.startswith("http") else ("--group", "steps")
    how = {"extensions": [extension or Host()], "elicitation_callback": form} | how
    async with connected(door, server.grpc, server.http, *group, **how) as client:
        yield client


def planned(*steps: dict[str, Any]) -> dict[str, Any]:
    """A start that brings its plan."""
    return {"turn": {"input": [{"data_json": document(*steps)}]}, "idempotency_key": uuid.uuid4().hex}


async def begin(client: McpClient, arguments: dict[str, Any]) -> str:
    """The id of the task that the start was answered with."""
    created = await client.session.call_tool("kfm_turn_start", arguments, allow_claimed=True)
    assert isinstance(created, Created), created
    extra = created.model_extra or {}
    assert extra["ttlMs"] is None
    assert extra["pollIntervalMs"] == 1_000
    assert not {"result", "error", "inputRequests"} & set(extra)
    return created.task_id


async def error(client: McpClient, method: str, task_id: str, **responses: Any) -> MCPError:
    with pytest.raises(MCPError) as raised:
        await ask(client.session, method, task_id, **responses)
    return raised.value


@BOTH
async def test_a_host_polls_a_turn_answers_its_step_and_gets_the_result_of_its_call(
    server: LiveServer, door: str
) -> None:
    extension = Host(answer="go on")
    async with host(server, door, extension) as client:
        plan = planned(question("ask"), step("then", "ledger_pure", "ask"))
        ended = await client.call_tool("kfm_turn_start", plan)
        (tool,) = [t for t in (await client.list_tools()).tools if t.name == "kfm_turn_start"]
    assert extension.asked == ["May it?"]
    assert not ended.is_error
    assert ended.structured_content is not None
    assert ended.structured_content["turn"]["outcome"] == "OUTCOME_SUCCEEDED"
    assert "ledger_pure done" in ended.content[0].text  # type: ignore[union-attr]
    assert validator_for(tool.output_schema or {}).is_valid(ended.structured_content)


@BOTH
@pytest.mark.requirement("R4")
async def test_a_task_outlives_the_server_and_the_client_that_began_it(
    server: LiveServer, sdk: Client, door: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(host(server, door))
        task_id = await begin(client, planned(question("ask"), step("then", "ledger_pure", "ask")))
        await until(sdk.turns.attach(task_id), waits(WaitReason.HUMAN))
        before = await ask(client.session, "tasks/get", task_id)
        assert before["status"] == "input_required"
        server.kill()
        await asyncio.to_thread(server.start)
        if door == HTTP_2026:
            await stack.aclose()
            client = await stack.enter_async_context(host(server, door))
        after = await ask(client.session, "tasks/get", task_id)
        assert after["inputRequests"] == before["inputRequests"]
        assert after["createdAt"] == before["createdAt"]
        (name,) = after["inputRequests"]
        yes = {"action": "accept", "content": {"answer": "yes"}}
        for _ in range(2):  # the second is ignored: nobody asks any more
            await ask(client.session, "tasks/update", task_id, **{name: yes, "unknown": {}})
        server.kill()
        await asyncio.to_thread(server.start)
        if door == HTTP_2026:
            await stack.aclose()
            client = await stack.enter_async_context(host(server, door))
        async with Client(server.grpc, timeout=15) as other:
            await other.turns.attach(task_id).result(timeout=SECONDS)
        ended = await ask(client.session, "tasks/get", task_id)
        assert ended["status"] == "completed"
        assert "ledger_pure done" in ended["result"]["content"][0]["text"]
        assert ended["lastUpdatedAt"] >= before["lastUpdatedAt"]


@BOTH
async def test_a_cancelled_task_is_a_cancelled_turn_and_cancelling_it_again_is_nothing(
    server: LiveServer, sdk: Client, door: str
) -> None:
    async with host(server, door) as client:
        task_id = await begin(client, planned(question("ask")))
        await ask(client.session, "tasks/cancel", task_id)
        ended = await sdk.turns.attach(task_id).result(timeout=SECONDS, check=False)
        assert ended.outcome == Outcome.CANCELLED
        assert (await ask(client.session, "tasks/get", task_id))["status"] == "cancelled"
        await ask(client.session, "tasks/cancel", task_id)
        yes = {"action": "accept", "content": {"answer": "yes"}}
        await ask(client.session, "tasks/update", task_id, **{"answer:ask:0": yes})


@BOTH
async def test_every_open_question_is_asked_and_a_wrong_or_declined_form_leaves_it_open(
    server: LiveServer, sdk: Client, door: str
) -> None:
    hold = str(server.home / "never-opened")
    once = step("once", "ledger_once", timeout_ms=300, hold=hold)
    async with host(server, door) as client:
        task_id = await begin(client, planned(question("ask"), once))
        await until(sdk.turns.attach(task_id), waits(WaitReason.NEEDS_REVIEW))
        told = await ask(client.session, "tasks/get", task_id)
        human, review = sorted(told["inputRequests"], key=lambda name: "settle" in name)
        choices = told["inputRequests"][review]["params"]["requestedSchema"]["properties"]["ended"]["enum"]
        wrong = {"action": "accept", "content": {"ended": "perhaps"}}
        refused = await error(client, "tasks/update", task_id, **{review: wrong})
        assert refused.code == codes.INVALID_PARAMS
        assert ", ".join(choices) in refused.message
        assert "action" in (await error(client, "tasks/update", task_id, **{review: {"x": 1}})).message
        await ask(client.session, "tasks/update", task_id, **{human: {"action": "decline"}})
        settled = {"action": "accept", "content": {"ended": "succeeded"}}
        await ask(client.session, "tasks/update", task_id, **{review: settled})
        assert list((await ask(client.session, "tasks/get", task_id))["inputRequests"]) == [human]
        yes = {"action": "accept", "content": {"answer": "yes"}}
        await ask(client.session, "tasks/update", task_id, **{human: yes})
        await sdk.turns.attach(task_id).result(timeout=SECONDS)
        assert (await ask(client.session, "tasks/get", task_id))["result"]["isError"] is False


async def test_a_turn_that_failed_is_an_errors_result_and_one_without_a_plan_a_failed_task(
    server: LiveServer, sdk: Client
) -> None:
    async with host(server, HTTP_2026) as client:
        hold = str(server.home / "never-opened")
        failing = planned(step("late", "ledger_pure", timeout_ms=100, hold=hold))
        failing["turn"]["limits"] = {"max_attempts": 1}
        task_id = await begin(client, failing)
        ended = await sdk.turns.attach(task_id).result(timeout=SECONDS, check=False)
        told = await ask(client.session, "tasks/get", task_id)
        assert told["status"] == "completed"
        assert told["result"]["isError"] is True
        assert ended.error is not None
        assert ended.error.reason in told["result"]["content"][0]["text"]
        task_id = await begin(client, planned(step("none", "there_is_none")))
        await sdk.turns.attach(task_id).result(timeout=SECONDS, check=False)
        told = await ask(client.session, "tasks/get", task_id)
        assert (told["status"], told["error"]["code"]) == ("failed", codes.INVALID_PARAMS)
        assert told["error"]["data"] == {"reason": "REASON_PLAN_INVALID"}
        assert "there_is_none" in told["error"]["message"]
        assert "result" not in told


async def test_a_client_that_shows_no_forms_is_told_who_must_act(server: LiveServer, sdk: Client) -> None:
    async with host(server, HTTP_2026, elicitation_callback=None) as client:
        task_id = await begin(client, planned(question("ask")))
        await until(sdk.turns.attach(task_id), waits(WaitReason.HUMAN))
        told = await ask(client.session, "tasks/get", task_id)
        assert told["status"] == "working"
        assert "kfm_step_answer" in told["statusMessage"]
        await ask(client.session, "tasks/cancel", task_id)


async def test_without_the_extension_nothing_changes_and_its_methods_are_refused(server: LiveServer) -> None:
    async with connected(HTTP_2026, server.grpc, server.http) as client:
        begun = await call(client, "kfm_turn_start", planned(question("ask")))
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            refused = await error(client, method, begun["turn_id"])
            assert refused.code == codes.MISSING_REQUIRED_CLIENT_CAPABILITY
            assert refused.data == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        await call(client, "kfm_turn_cancel", {"turn_id": begun["turn_id"]})
    async with host(server, HTTP_2025) as client:
        begun = await call(client, "kfm_turn_start", planned(step("one", "ledger_pure")))
        assert begun["next"]["tool"] == "kfm_turn_wait"


@BOTH
async def test_a_task_that_is_not_there_is_an_error_of_the_protocol(server: LiveServer, door: str) -> None:
    async with host(server, door) as client:
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            for task_id in ("turn_none", "../x"):
                assert (await error(client, method, task_id)).code == codes.INVALID_PARAMS


async def test_an_identical_start_is_the_same_task_until_somebody_looks_at_it(server: LiveServer) -> None:
    arguments = {"turn": {"input": [{"text": f"what is 2 + 2? {uuid.uuid4()}"}]}}
    async with host(server, HTTP_2026) as client:
        first = await begin(client, arguments)
        assert await begin(client, arguments) == first
        await ask(client.session, "tasks/get", first)
        assert await begin(client, arguments) != first
