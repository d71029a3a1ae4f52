"""Xenocomm against a whole server with a scripted model: typed answers, streams, limits, sessions, time that is moved on."""

import asyncio
import sys
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypedDict

import pytest
from xenocomm import (
    Client,
    Discard,
    Envelope,
    EventWatch,
    OutputMismatch,
    Piece,
    Role,
    SyncClient,
    TurnFailed,
    TurnNeedsPerson,
    TurnState,
    TurnTimedOut,
    TurnUpdate,
    errors,
)
from xenocomm.testing import RecordedTurn, ServerInProcess, load, save, server

from tests.support.agent import SCRIPT

pytestmark = pytest.mark.requirement("E5")
QUESTION = {"plan": {"steps": [{"key": "ask", "kind": "human", "instructions": "Well?"}]}}


@dataclass
class Answer:
    """What came out."""

    result: int
    why: str


class Loose(TypedDict):
    result: int
    why: str


@pytest.fixture(scope="module")
def running() -> Generator[ServerInProcess]:
    with server(script=SCRIPT) as found:
        yield found


@pytest.fixture
def kfm(running: ServerInProcess) -> Generator[SyncClient]:
    with running.sync_client(timeout=15) as client:
        yield client


@pytest.mark.requirement("P1")
def test_an_answer_comes_in_the_callers_type(kfm: SyncClient) -> None:
    assert kfm.turns.run("structured", output=Answer) == Answer(42, "because")
    assert kfm.turns.run("structured", output=Loose) == {"result": 42, "why": "because"}
    assert kfm.turns.run("structured", output={"type": "object"}) == {"result": 42, "why": "because"}
    turn = kfm.turns.start("structured", output=Answer)
    usage = turn.result().usage
    assert usage is not None and usage.model_calls == 1 and usage.input_tokens > 0
    assert turn.output(Answer).result == 42


def test_an_answer_that_does_not_fit_is_a_typed_failure(kfm: SyncClient) -> None:
    turn = kfm.turns.start("structured", output={"type": "object"})
    with pytest.raises(OutputMismatch) as wrong:
        turn.output(dict[str, int])
    assert wrong.value.violations[0].field == "output.why"
    assert wrong.value.turn.turn_id == turn.id
    with pytest.raises(TurnFailed):  # the server found it before: the model cannot do what the schema says
        kfm.turns.run("structured", output={"type": "object", "required": ["more"]})


async def test_the_answer_streams_and_an_attempt_that_starts_over_voids_its_pieces(
    running: ServerInProcess,
) -> None:
    async with running.client() as kfm:
        turn = await kfm.turns.start("twice", watch=True)
        shown = ""
        voided = 0
        async for delta in turn.text_deltas(timeout=30):
            if isinstance(delta, Discard):
                shown, voided = "", voided + 1
            elif isinstance(delta, Piece):
                shown += delta.text
        assert (shown, voided) == ("one two three four", 1)
        result = await turn.result()
        assert result.output[0].text == shown
        assert result.usage is not None and result.usage.model_calls == 2


async def test_reasoning_and_tool_arguments_stream_by_kind(running: ServerInProcess) -> None:
    async with running.client() as kfm:
        thought = await kfm.turns.start("think", watch=True)
        pieces = [d async for d in thought.deltas("reasoning") if isinstance(d, Piece)]
        assert "".join(p.text for p in pieces) == "hm, hm"
        computed = await kfm.turns.start("compute 6*7", watch=True)
        pieces = [d async for d in computed.deltas("tool_arguments") if isinstance(d, Piece)]
        assert "".join(p.text for p in pieces) == '{"expression": "6*7"}'
        assert "".join([t async for t in computed.text()]) == "It is 6*7 = 42."


async def test_until_done_hands_out_every_update_and_ends_with_the_turn_or_with_a_wait_for_a_person(
    running: ServerInProcess,
) -> None:
    async with running.client() as kfm:
        updates: list[TurnUpdate] = []
        turn = await kfm.turns.start("hello", watch=True)
        result = await turn.until_done(updates.append, timeout=30)
        assert result.state == TurnState.FINISHED
        sequences = [u.event.sequence for u in updates if u.event]
        assert sequences == list(range(1, result.last_sequence + 1))
        asking = await kfm.turns.start(QUESTION, watch=True)
        with pytest.raises(TurnNeedsPerson) as waits:
            await asking.until_done(timeout=30)
        assert waits.value.step_key == "ask"
        await asking.answer("ask", "1")
        assert (await asking.until_done(timeout=30)).state == TurnState.FINISHED


def test_limits_are_given_by_name_and_money_in_dollars(kfm: SyncClient) -> None:
    with pytest.raises(TurnFailed) as failed:
        kfm.turns.run("compute 1+1", limits={"max_model_calls": 1})
    assert failed.value.reason == "REASON_BUDGET_EXCEEDED"
    turn = kfm.turns.start("hello", limits={"max_cost": "0.05", "max_tokens": 90_000, "step_timeout": 5})
    spec = turn.result().spec
    assert spec is not None and spec.limits is not None
    assert (spec.limits.max_cost_nanos, spec.limits.max_tokens) == (50_000_000, 90_000)
    assert spec.limits.step_timeout == timedelta(seconds=5)
    for wrong in (-1, "x", float("nan"), True, 10**30):
        with pytest.raises(errors.InvalidArgument, match="max_cost"):
            kfm.turns.start("hello", limits={"max_cost": wrong})
    with pytest.raises(errors.InvalidArgument, match="max_money"):
        kfm.turns.start("hello", limits={"max_money": 1})


def test_a_session_tells_what_was_said(kfm: SyncClient) -> None:
    first = kfm.turns.start("hello")
    first.result()
    for text in ("again", "and again"):
        kfm.turns.run(text, session_id=first.session_id)
    messages = list(kfm.turns.attach(first.id).session_messages())
    assert [m.role for m in messages] == [Role.USER, Role.AGENT] * 3
    assert messages[-1].parts[0].text == "You said and again."
    assert kfm.sessions.get(first.session_id).turns == 3
    assert first.session_id in [s.session_id for s in kfm.sessions.list(page_size=2)]
    page = kfm.sessions.messages(first.session_id).page("", 1)
    assert (len(page.items), bool(page.next_page_token)) == (2, True)
    assert list(kfm.sessions.messages(first.session_id, page_size=1)) == messages
    with pytest.raises(errors.SessionNotFound):
        kfm.sessions.get("ses_nothing")


def test_personalities_are_listed_with_what_they_may_use(kfm: SyncClient) -> None:
    found = {p.name: p for p in kfm.personalities.list()}
    assert found["scripted"].is_default
    assert (found["scripted"].planner, found["scripted"].models) == ("react", ("scripted",))
    with pytest.raises(errors.PersonalityNotFound):
        kfm.turns.start("hello", personality="nobody")


def test_the_configuration_in_force_is_shown_and_read_again(
    running: ServerInProcess, kfm: SyncClient
) -> None:
    values = {v.name: v for v in kfm.server.config().values}
    assert values["models.scripted.provider"].source.endswith("config.toml:3")
    file = running.home / "config.toml"
    before = file.read_text()
    try:
        file.write_text(f"{before}\n[limits]\nmax_steps = 7\n")
        assert "limits.max_steps" in kfm.server.reload().changed
        file.write_text(f"{before}\nnonsense = 1\n")
        with pytest.raises(errors.ConfigInvalid, match="nonsense"):
            kfm.server.reload()
        assert kfm.server.config().last_error
    finally:
        file.write_text(before)
        kfm.server.reload()


@pytest.mark.requirement("R9")
def test_an_hour_of_waiting_for_a_person_ends_at_once_when_time_is_moved_on(
    running: ServerInProcess, kfm: SyncClient
) -> None:
    turn = kfm.turns.start(QUESTION, timeout=3600)
    before = running.clock.now()
    with pytest.raises(TurnNeedsPerson):
        turn.result()
    running.clock.advance(3599)
    assert turn.get().state == TurnState.WAITING
    running.clock.advance(timedelta(seconds=2))
    with pytest.raises(TurnTimedOut):
        turn.result()
    assert running.clock.now() - before >= timedelta(hours=1)


def test_time_jumps_to_the_next_timer(running: ServerInProcess, kfm: SyncClient) -> None:
    turn = kfm.turns.start(QUESTION, timeout=7200)
    assert running.clock.jump() <= timedelta(hours=2)
    with pytest.raises(TurnTimedOut):
        turn.result()


async def test_a_recorded_turn_plays_again_without_a_server(running: ServerInProcess, tmp_path: Path) -> None:
    async with running.client() as kfm:
        turn = await kfm.turns.start("twice", watch=True)
        updates = [u async for u in turn.updates(timeout=30)]
        result = await turn.result()
    path = tmp_path / "turn.jsonl"
    save(path, updates)
    played = load(path)
    assert [u async for u in played.updates()] == updates
    assert [e.sequence async for e in played.events(after=2)] == list(range(3, result.last_sequence + 1))
    assert [d async for d in played.text_deltas()] == [d async for d in RecordedTurn(updates).text_deltas()]
    again = await played.result()
    assert (again.turn_id, again.outcome, again.output) == (result.turn_id, result.outcome, result.output)
    assert again.usage == result.usage
    with pytest.raises(errors.Unimplemented):
        await played.cancel()
    path.write_text("nonsense\n")
    with pytest.raises(ValueError, match=r"turn\.jsonl:1"):
        load(path)
    with pytest.raises(ValueError, match="one event"):
        RecordedTurn([])


@pytest.mark.requirement("R11")
async def test_events_of_all_turns_are_followed_by_type_session_and_label(running: ServerInProcess) -> None:
    async with running.client() as kfm:
        for color in ("blue", "red", "blue"):
            await kfm.turns.run("hello", labels={"color": color, "test": "events"})
        watch = kfm.events.watch(
            "TurnEvent.v1", labels={"color": "blue", "test": "events"}, start="beginning"
        )
        first = await _take(watch, 2)
        assert len({e.turn_id for e in first}) == 2
        of_session = kfm.events.watch(session_id=first[0].session_id, start="beginning")
        events = await _take(of_session, 3)
        assert [e.sequence for e in events] == [1, 2, 3]
        later = await kfm.turns.run("later", labels={"color": "blue", "test": "events"})
        resumed = kfm.events.watch(
            "TurnEvent.v1", labels={"color": "blue", "test": "events"}, cursor=watch.cursor
        )
        # What was handed out when its reader left may come again; nothing is left out.
        ids: list[str] = []
        async with asyncio.timeout(30):
            async for event in resumed:
                ids.append(event.turn_id)
                if event.turn_id == later.turn_id:
                    break
        assert ids[-1] == later.turn_id and len(set(ids)) == len(ids)
        assert set(ids[:-1]) <= {e.turn_id for e in first}
        with pytest.raises(errors.InvalidArgument, match="Nothing"):
            await _take(kfm.events.watch("Nothing.v1"), 1)
        with pytest.raises(errors.PageTokenInvalid):
            await _take(kfm.events.watch(cursor="nonsense"), 1)


async def _take(watch: EventWatch, count: int) -> list[Envelope]:
    found: list[Envelope] = []
    async with asyncio.timeout(30):
        async for event in watch:
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_the_fixtures_of_the_kit_serve_a_program_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["xenocomm.testing.plugin"]\n')
    (tmp_path / "test_mine.py").write_text(
        "def test_it(kfm, kfm_server):\n"
        "    turn = kfm.turns.run('Add buy milk and compute 17 * 3')\n"
        "    assert '51' in turn.output[0].text and turn.usage.model_calls\n"
        "    kfm_server.clock.advance(60)\n"
    )
    await _passes(tmp_path)


async def test_a_script_of_ones_own_is_one_fixture(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        'pytest_plugins = ["xenocomm.testing.plugin"]\n'
        '@pytest.fixture(scope="session")\n'
        "def kfm_script():\n"
        '    return {"rules": [{"reply": {"text": "Ahoy."}}]}\n'
    )
    (tmp_path / "test_mine.py").write_text(
        "def test_it(kfm):\n    assert kfm.turns.run('Hello').output[0].text == 'Ahoy.'\n"
    )
    await _passes(tmp_path)


async def _passes(tests: Path) -> None:
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    process = await asyncio.create_subprocess_exec(*call, stdout=asyncio.subprocess.PIPE, cwd=tests)
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-2000:]


async def test_a_server_that_cannot_start_says_why(running: ServerInProcess) -> None:
    with pytest.raises(Exception, match="nonsense"), server(config="nonsense = 1\n"):
        raise AssertionError
    assert isinstance(Client(running.endpoint), Client)
