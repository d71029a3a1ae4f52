"""Sessions and personalities, asked of a real server over the wire."""

from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.personality.v1 import personality_service_pb2 as persons
from kfm.personality.v1 import personality_service_pb2_grpc as personality_rpc
from kfm.session.v1 import session_service_pb2 as pb
from kfm.session.v1 import session_service_pb2_grpc as rpc
from xenocomm import BusyMode, Client, Outcome

from tests.support.live import LiveServer
from tests.support.plans import call, given, question
from tests.support.refusals import refusal

LIMIT = 30.0


@pytest.fixture
async def channel(live_server: LiveServer) -> AsyncGenerator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(live_server.grpc) as channel:
        yield channel


@pytest.fixture
def sessions(channel: grpc.aio.Channel) -> Any:
    return rpc.SessionServiceStub(channel)


async def _session_of_three(live: Client) -> str:
    """Two turns that go well and one that does not, in between."""
    first = await live.turns.start("2 + 3")
    await first.result(timeout=LIMIT)
    session_id = (await first.get()).session_id
    bad = await live.turns.start(given(call("s1", "no_such_tool")), session_id=session_id)
    assert (await bad.result(timeout=LIMIT, check=False)).outcome == Outcome.FAILED
    last = await live.turns.start("4 * 5", session_id=session_id)
    await last.result(timeout=LIMIT)
    return session_id


@pytest.mark.requirement("R2", "E5")
async def test_messages_are_what_was_said_and_answered_in_order(live: Client, sessions: Any) -> None:
    session_id = await _session_of_three(live)
    answer = await sessions.ListMessages(pb.ListMessagesRequest(session_id=session_id))
    said = [(m.role, "".join(p.text for p in m.parts), m.outcome) for m in answer.messages]
    user, agent = pb.ROLE_USER, pb.ROLE_AGENT
    assert said[0] == (user, "2 + 3", ev.OUTCOME_UNSPECIFIED)
    assert said[1] == (agent, "2 + 3 = 5", ev.OUTCOME_SUCCEEDED)
    assert said[3] == (agent, "", ev.OUTCOME_FAILED)
    assert answer.messages[3].error.reason
    assert said[4:] == [
        (user, "4 * 5", ev.OUTCOME_UNSPECIFIED),
        (agent, "4 * 5 = 20", ev.OUTCOME_SUCCEEDED),
    ]
    assert len({m.turn_id for m in answer.messages}) == 3
    times = [m.said_at.ToMicroseconds() for m in answer.messages]
    assert times == sorted(times)


@pytest.mark.requirement("R2")
async def test_what_was_rolled_back_was_never_said_and_a_retry_is_said_behind_what_it_retries(
    live: Client, sessions: Any
) -> None:
    first = await live.turns.start(given(call("s1", "no_such_tool")))
    assert (await first.result(timeout=LIMIT, check=False)).outcome == Outcome.FAILED
    session_id = (await first.get()).session_id
    waiting = await live.turns.start(given(question("ask")), session_id=session_id)
    last = await live.turns.start("2 + 3", session_id=session_id, on_busy=BusyMode.ROLLBACK)
    await last.result(timeout=LIMIT)
    assert (await waiting.result(timeout=LIMIT, check=False)).outcome == Outcome.CANCELLED
    fork = await last.fork("s1")
    await fork.result(timeout=LIMIT)
    answer = await sessions.ListMessages(pb.ListMessagesRequest(session_id=session_id))
    assert [m.turn_id for m in answer.messages[::2]] == [first.id, last.id, fork.id]


@pytest.mark.requirement("R2", "E5")
async def test_messages_come_in_pages(live: Client, sessions: Any) -> None:
    session_id = await _session_of_three(live)
    request = pb.ListMessagesRequest(session_id=session_id, page_size=1)
    turns: list[str] = []
    while True:
        page = await sessions.ListMessages(request)
        assert len(page.messages) == 2
        turns.append(page.messages[0].turn_id)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    whole = await sessions.ListMessages(pb.ListMessagesRequest(session_id=session_id))
    assert turns == [m.turn_id for m in whole.messages[::2]]


@pytest.mark.requirement("R2", "E5")
async def test_sessions_are_listed_with_the_latest_first_and_told_alone(live: Client, sessions: Any) -> None:
    one, two = await _session_of_three(live), await _session_of_three(live)
    page = await sessions.ListSessions(pb.ListSessionsRequest(page_size=1))
    assert [s.session_id for s in page.sessions] == [two]
    request = pb.ListSessionsRequest(page_size=1, page_token=page.next_page_token)
    rest = await sessions.ListSessions(request)
    assert [s.session_id for s in rest.sessions] == [one]
    told = (await sessions.GetSession(pb.GetSessionRequest(session_id=one))).session
    assert told == rest.sessions[0]
    assert told.turns == 3
    assert told.created_at.ToMicroseconds() < told.updated_at.ToMicroseconds()
    request = pb.ListMessagesRequest(session_id=one)
    assert told.last_turn_id == (await sessions.ListMessages(request)).messages[-1].turn_id


@pytest.mark.requirement("R2")
async def test_unknown_sessions_and_tokens_of_other_lists_are_typed_errors(
    live: Client, sessions: Any
) -> None:
    session_id = await _session_of_three(live)
    for ask in (
        sessions.GetSession(pb.GetSessionRequest(session_id="ses_none")),
        sessions.ListMessages(pb.ListMessagesRequest(session_id="ses_none")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask
        assert refusal(caught.value).reason == "REASON_SESSION_NOT_FOUND"
    page = await sessions.ListMessages(pb.ListMessagesRequest(session_id=session_id, page_size=1))
    for token in (
        "nonsense",
        "ses_other|1",
        f"{session_id}|",
        f"{session_id}|-1",
        page.next_page_token + "x",
    ):
        request = pb.ListMessagesRequest(session_id=session_id, page_token=token)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await sessions.ListMessages(request)
        assert refusal(caught.value).reason == "REASON_PAGE_TOKEN_INVALID", token
    for token in ("x", "sessions|", "sessions|x\0", page.next_page_token):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await sessions.ListSessions(pb.ListSessionsRequest(page_token=token))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, token


@pytest.mark.requirement("P3")
async def test_personalities_tell_what_a_turn_may_name(channel: grpc.aio.Channel) -> None:
    stub: Any = personality_rpc.PersonalityServiceStub(channel)
    found = (await stub.ListPersonalities(persons.ListPersonalitiesRequest())).personalities
    assert [p.name for p in found] == sorted(p.name for p in found)
    default = next(p for p in found if p.is_default)
    assert sum(p.is_default for p in found) == 1
    assert "calculator" in default.tools
    assert len(default.digest) == 64
