"""What may be asked of a turn while it lives and after, against a real server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from kfm.turn.v1 import turn_pb2 as api
from kfm.turn.v1 import turn_service_pb2 as rpc
from xenocomm import (
    BusyMode,
    Client,
    Outcome,
    ResultTimeout,
    SettleAs,
    TurnCancelled,
    TurnFailed,
    TurnHandle,
    TurnNeedsPerson,
    TurnState,
    TurnTimedOut,
    errors,
)
from xenocomm._gen.types import (
    Envelope,
    StepEvent,
    StepResultEvent,
    StepState,
    StepStatus,
    TurnStateEvent,
    TurnVerb,
    WaitReason,
)

from tests.support.ledger import read_ledger
from tests.support.live import LiveServer
from tests.support.plans import Gate, call, given, question, started, until, waits

pytestmark = pytest.mark.requirement("R9")

MESSAGE = given(call("s1", "ledger_pure"))


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Closed."""
    return Gate(tmp_path / "gate")


def last_of(events: list[Envelope]) -> TurnStateEvent:
    """The event that ended a turn."""
    assert isinstance(events[-1].event, TurnStateEvent)
    return events[-1].event


def calls_of(server: LiveServer, turn_id: str) -> list[str]:
    """Keys of the tool calls that carried this turn's id, in order."""
    return [c["key"] for c in read_ledger(server.home / "ledger.jsonl") if c["key"].startswith(turn_id)]


async def held(live: Client, gate: Gate, tool: str = "ledger_idempotent", **how: Any) -> TurnHandle:
    """A turn whose first step has started and waits for the gate, and whose second follows it."""
    plan = given(call("s1", tool, hold=gate.hold), call("s2", "ledger_idempotent", "s1"))
    turn = await live.turns.start(plan, **how)
    await until(turn, started("s1"))
    return turn


# -- cancel, pause, resume


async def test_a_cancel_ends_a_turn_at_once_and_answers_the_running_call(live: Client, gate: Gate) -> None:
    turn = await held(live, gate)
    shown = await turn.cancel("not needed", idempotency_key="c1")
    assert shown.outcome == Outcome.CANCELLED
    events = [e async for e in turn.events()]
    results = [e.event for e in events if isinstance(e.event, StepResultEvent)]
    assert [(r.step_key, r.status, r.synthesised) for r in results] == [("s1", StepStatus.CANCELLED, True)]
    with pytest.raises(TurnCancelled):
        await turn.result()
    assert (await turn.cancel("not needed", idempotency_key="c1")).turn_id == turn.id
    with pytest.raises(errors.TurnFinished):
        await turn.cancel("again")


async def test_a_cancel_awaits_an_effect_that_may_not_be_cut_and_lists_it(live: Client, gate: Gate) -> None:
    turn = await held(live, gate, "ledger_once")
    shown = await turn.cancel()
    assert shown.state != TurnState.FINISHED
    gate.open()
    done = await turn.result(check=False)
    assert done.outcome == Outcome.CANCELLED
    assert done.effects_done == ("s1",)
    assert [s.state for s in done.steps] == [StepState.SUCCEEDED, StepState.SKIPPED]


async def test_a_paused_turn_starts_nothing_until_it_is_resumed(live: Client, gate: Gate) -> None:
    turn = await held(live, gate)
    await turn.pause("let me look")
    with pytest.raises(errors.StateConflict):
        await turn.pause()
    gate.open()
    await until(turn, waits(WaitReason.PAUSED))
    with pytest.raises(TurnNeedsPerson):
        await turn.result()
    paused = await turn.get()
    assert [s.state for s in paused.steps] == [StepState.SUCCEEDED, StepState.PENDING]
    found = await turn.explain()
    assert [w.reason for w in found.waits] == [WaitReason.PAUSED]
    assert TurnVerb.RESUME in found.waits[0].ended_by
    await turn.resume()
    assert (await turn.result()).outcome == Outcome.SUCCEEDED
    with pytest.raises(errors.TurnFinished):
        await turn.resume()


# -- people


@pytest.mark.requirement("R4")
async def test_a_human_step_waits_for_its_answer_and_hands_it_on(live: Client) -> None:
    turn = await live.turns.start(
        given(question("ask"), call("s2", "ledger_pure", "ask", note={"$ref": "ask#/word"}))
    )
    await until(turn, waits(WaitReason.HUMAN))
    with pytest.raises(TurnNeedsPerson) as waiting:
        await turn.result()
    assert waiting.value.exit_code == 7
    (wait,) = (await turn.explain()).waits
    assert (wait.reason, wait.step_key) == (WaitReason.HUMAN, "ask")
    assert wait.until is not None
    assert TurnVerb.ANSWER in wait.ended_by
    with pytest.raises(errors.StepNotFound):
        await turn.answer("nobody", "1")
    with pytest.raises(errors.StateConflict):
        await turn.answer("s2", "1")
    with pytest.raises(errors.InvalidArgument):
        await turn.answer("ask", "not json")
    await turn.answer("ask", '{"word": "yes"}')
    done = await turn.result()
    assert done.outcome == Outcome.SUCCEEDED
    sent = [e.event for e in [e async for e in turn.events()] if isinstance(e.event, StepEvent)]
    assert json.loads(sent[-1].parameters_json) == {"note": "yes"}


@pytest.mark.requirement("R4")
async def test_a_human_step_that_nobody_answers_fails_in_time(live: Client) -> None:
    turn = await live.turns.start(given(question("ask", timeout_ms=100)))
    await until(turn, lambda e: isinstance(e.event, TurnStateEvent) and bool(e.event.outcome))
    with pytest.raises(TurnFailed) as failed:
        await turn.result()
    assert failed.value.turn_reason == "REASON_STEP_TIMEOUT"


@pytest.mark.requirement("R4", "R8")
@pytest.mark.parametrize("verdict", [SettleAs.SUCCEEDED, SettleAs.FAILED, SettleAs.RETRY])
async def test_a_step_of_unknown_outcome_waits_for_a_verdict(
    live: Client, live_server: LiveServer, gate: Gate, verdict: SettleAs
) -> None:
    turn = await live.turns.start(
        given(call("s1", "ledger_once", hold=gate.hold, timeout_ms=50), call("s2", "ledger_pure", "s1"))
    )
    await until(turn, waits(WaitReason.NEEDS_REVIEW))
    shown = await turn.get()
    assert shown.steps[0].state == StepState.NEEDS_REVIEW
    (wait,) = (await turn.explain()).waits
    assert (wait.reason, wait.step_key) == (WaitReason.NEEDS_REVIEW, "s1")
    assert TurnVerb.SETTLE in wait.ended_by
    with pytest.raises(errors.StateConflict):
        await turn.settle("s2", verdict)
    if verdict != SettleAs.SUCCEEDED:
        with pytest.raises(errors.InvalidArgument, match="only a step that is settled as succeeded"):
            await turn.settle("s1", verdict, output_json="1")
    gate.open()
    await turn.settle("s1", verdict, output_json='{"text": "seen"}' if verdict == SettleAs.SUCCEEDED else "")
    done = await turn.result(check=False)
    calls = [k for k in calls_of(live_server, turn.id) if k.endswith(":s1")]
    match verdict:
        case SettleAs.SUCCEEDED:
            assert (done.outcome, json.loads(done.steps[0].output_json)) == (
                Outcome.SUCCEEDED,
                {"text": "seen"},
            )
            assert calls == []
        case SettleAs.FAILED:
            assert (done.outcome, done.effects_done) == (Outcome.FAILED, ("s1",))
            assert calls == []
        case _:
            assert done.outcome == Outcome.SUCCEEDED
            assert calls == [f"{turn.id}:s1"]


# -- retry and fork


async def test_a_retry_keeps_what_succeeded_and_the_keys_and_a_fork_has_its_own(
    live: Client, live_server: LiveServer, gate: Gate
) -> None:
    plan = given(
        call("s1", "ledger_idempotent"),
        question("ask", "s1", timeout_ms=100),
        call("s3", "ledger_pure", "ask"),
    )
    first = await live.turns.start(plan)
    events = await until(first, lambda e: isinstance(e.event, TurnStateEvent) and bool(e.event.outcome))
    assert last_of(events).outcome == Outcome.FAILED
    with pytest.raises(errors.StepNotFound):
        await first.fork("nothing")
    again = await first.retry(idempotency_key=f"retry-{first.id}")
    assert (await first.retry(idempotency_key=f"retry-{first.id}")).id == again.id
    seen = await until(again, started("ask"))
    sent = [e.event for e in seen if isinstance(e.event, StepEvent)]
    assert [(s.step_key, s.key) for s in sent] == [("ask", f"{first.id}:ask")]
    await again.cancel()
    assert (await again.get()).parent_turn_id == first.id
    assert calls_of(live_server, first.id) == [f"{first.id}:s1"]
    branch = await first.fork("s1")
    seen = await until(branch, started("ask"))
    sent = [e.event for e in seen if isinstance(e.event, StepEvent)]
    assert [s.key for s in sent] == [f"{branch.id}:s1", f"{branch.id}:ask"]
    with pytest.raises(errors.TurnNotFinished):
        await branch.retry()
    await branch.answer("ask", "true")
    assert (await branch.result()).outcome == Outcome.SUCCEEDED
    with pytest.raises(errors.StateConflict):
        await branch.retry()


# -- what a turn waits for


async def test_explain_names_the_steps_that_run_and_the_turns_ahead(live: Client, gate: Gate) -> None:
    first = await held(live, gate)
    second = await live.turns.start(MESSAGE, session_id=first.session_id)
    running, queued = await first.explain(), await second.explain()
    assert (running.state, queued.state) == (TurnState.RUNNING, TurnState.QUEUED)
    assert [(w.reason, w.step_key) for w in running.waits] == [(WaitReason.STEPS, "s1")]
    assert [(w.reason, w.blocking_turn_id) for w in queued.waits] == [(WaitReason.QUEUED, first.id)]
    for wait in (*running.waits, *queued.waits):
        assert wait.since is not None
        assert wait.until is not None
        assert wait.since < wait.until
        assert wait.then
        assert TurnVerb.CANCEL in wait.ended_by
    gate.open()
    await second.result()
    assert (await second.explain()).waits == ()


@pytest.mark.requirement("R4")
async def test_a_timed_out_idempotent_step_backs_off_and_tries_again_under_the_same_key(
    live: Client, gate: Gate
) -> None:
    turn = await live.turns.start(given(call("s1", "ledger_idempotent", hold=gate.hold, timeout_ms=50)))
    await until(turn, waits(WaitReason.RETRY_BACKOFF))
    gate.open()
    done = await turn.result()
    assert [a.status for a in done.steps[0].attempts] == [StepStatus.FAILED, StepStatus.SUCCEEDED]
    keys = {e.event.key async for e in turn.events() if isinstance(e.event, StepEvent)}
    assert keys == {f"{turn.id}:s1"}


# -- a second message while a turn runs


async def test_a_busy_session_rejects_or_queues_as_asked(live: Client, gate: Gate) -> None:
    first = await held(live, gate)
    with pytest.raises(errors.SessionBusy):
        await live.turns.start(MESSAGE, session_id=first.session_id, on_busy=BusyMode.REJECT)
    second = await live.turns.start(MESSAGE, session_id=first.session_id, on_busy=BusyMode.ENQUEUE)
    third = await live.turns.start(MESSAGE, session_id=first.session_id, idempotency_key="third")
    # The answer may have been lost: asked again, the turn is not in its own way.
    same = await live.turns.start(MESSAGE, session_id=first.session_id, idempotency_key="third")
    assert same.id == third.id
    assert (await third.cancel()).outcome == Outcome.CANCELLED
    assert (await second.get()).state == TurnState.QUEUED
    gate.open()
    assert (await second.result()).outcome == Outcome.SUCCEEDED
    assert (await first.get()).outcome == Outcome.SUCCEEDED


async def test_a_repeated_request_is_not_refused_for_what_it_did_itself(live: Client, gate: Gate) -> None:
    plan = given(call("s1", "ledger_idempotent", hold=gate.hold))
    first = await live.turns.start("what is 1 + 1?")
    await first.result()
    how: dict[str, Any] = {
        "session_id": first.session_id,
        "on_busy": BusyMode.REJECT,
        "idempotency_key": f"once-{first.id}",
    }
    turn = await live.turns.start(plan, **how)
    assert (await live.turns.start(plan, **how)).id == turn.id
    await turn.pause(idempotency_key="p1")
    await turn.pause(idempotency_key="p1")
    await turn.resume()  # before the step may end: a paused turn with nothing left to do ends
    gate.open()
    assert (await turn.result()).outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize(("mode", "dropped"), [(BusyMode.INTERRUPT, False), (BusyMode.ROLLBACK, True)])
async def test_an_urgent_message_cancels_the_running_turn(
    live: Client, gate: Gate, mode: BusyMode, dropped: bool
) -> None:
    first = await held(live, gate)
    second = await live.turns.start(MESSAGE, session_id=first.session_id, on_busy=mode)
    assert (await second.result()).outcome == Outcome.SUCCEEDED
    ended = last_of([e async for e in first.events()])
    assert (ended.outcome, ended.dropped) == (Outcome.CANCELLED, dropped)


# -- plans


@pytest.mark.requirement("R3", "R4")
async def test_branches_run_side_by_side_and_references_carry_outputs(live: Client, gate: Gate) -> None:
    turn = await live.turns.start(
        given(
            call("s1", "ledger_idempotent", hold=gate.hold),
            call("s2", "ledger_idempotent", hold=gate.hold),
            call("s3", "ledger_idempotent", "s1", "s2", note={"$ref": "s1#/text"}),
        )
    )
    seen = await until(turn, started("s2"))
    assert not [e for e in seen if isinstance(e.event, StepResultEvent)]
    gate.open()
    rest = [e.event async for e in turn.events(seen[-1].sequence)]
    (last,) = [e for e in rest if isinstance(e, StepEvent)]
    assert (last.step_key, json.loads(last.parameters_json)) == ("s3", {"note": "ledger_idempotent done"})
    ended = [e.step_key for e in rest if isinstance(e, StepResultEvent)]
    assert sorted(ended[:2]) == ["s1", "s2"]


# -- keys, waiting, lists, deadlines, disconnects


@pytest.mark.requirement("R8")
async def test_one_key_makes_one_turn_and_another_body_conflicts(live: Client) -> None:
    key = "same-key"
    turns = await asyncio.gather(*(live.turns.start("what is 1 + 1?", idempotency_key=key) for _ in range(8)))
    assert len({t.id for t in turns}) == 1
    await turns[0].result()
    assert (await live.turns.start("what is 1 + 1?", idempotency_key=key)).id == turns[0].id
    with pytest.raises(errors.IdempotencyConflict):
        await live.turns.start("what is 1 + 2?", idempotency_key=key)


async def test_a_wait_gives_up_without_touching_the_turn(live: Client, gate: Gate) -> None:
    turn = await held(live, gate)
    with pytest.raises(ResultTimeout):
        await turn.result(timeout=0.1)
    gate.open()
    assert (await turn.result()).outcome == Outcome.SUCCEEDED


async def test_lists_are_paged_newest_first_and_filtered(live: Client) -> None:
    first = await live.turns.start(MESSAGE)
    session = first.session_id
    made = [first.id] + [(await live.turns.start(MESSAGE, session_id=session)).id for _ in range(4)]
    await live.turns.attach(made[-1]).result()
    seen: list[str] = []
    token, sizes = "", list[int]()
    while True:
        turns, token = await live.turns.list(session_id=session).page(token, 2)
        seen += [t.turn_id for t in turns]
        sizes.append(len(turns))
        if not token:
            break
    assert seen == made[::-1]
    assert sizes == [2, 2, 1]
    assert [t async for t in live.turns.list(session_id=session, state=TurnState.RUNNING)] == []
    _, token = await live.turns.list(session_id=session).page(page_size=2)
    with pytest.raises(errors.PageTokenInvalid):
        await live.turns.list().page(token)
    with pytest.raises(errors.PageTokenInvalid):
        await live.turns.list(session_id=session).page("nonsense")


async def test_a_turn_that_takes_too_long_is_ended(live: Client, gate: Gate) -> None:
    turn = await held(live, gate, timeout=0.3)
    with pytest.raises(TurnTimedOut):
        await turn.result()
    done = await turn.get()
    assert done.error is not None
    assert done.error.reason == "REASON_TURN_TIMEOUT"
    assert done.steps[0].state == StepState.CANCELLED


@pytest.mark.requirement("E1", "FT13", "FT14")
async def test_a_deadline_or_a_disconnect_of_the_call_changes_nothing_for_the_turn(
    live_server: LiveServer, live: Client, gate: Gate
) -> None:
    plan = given(call("s1", "ledger_idempotent", hold=gate.hold), call("s2", "ledger_idempotent", "s1"))
    spec = api.TurnSpec(input=[{"data_json": p.data_json} for p in plan])  # type: ignore[union-attr]
    async with grpc.aio.insecure_channel(live_server.grpc) as channel:
        run = channel.unary_stream(
            "/kfm.turn.v1.TurnService/RunTurn",
            request_serializer=rpc.RunTurnRequest.SerializeToString,
            response_deserializer=rpc.RunTurnResponse.FromString,
        )
        seen: list[int] = []
        turn_id = ""
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async for answer in run(rpc.RunTurnRequest(turn=spec, idempotency_key="deadline"), timeout=0.5):
                seen += [u.event.sequence for u in answer.updates if u.HasField("event")]
                turn_id = turn_id or answer.updates[0].event.turn_id
        assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    turn = live.turns.attach(turn_id)
    assert (await turn.get()).state == TurnState.RUNNING
    watched = [e.sequence for e in await until(turn, started("s1"))]
    assert watched == seen
    gate.open()
    rest = [e.sequence async for e in turn.events(watched[-1])]
    assert watched + rest == list(range(1, watched[-1] + len(rest) + 1))
    assert (await turn.result()).outcome == Outcome.SUCCEEDED


@pytest.mark.requirement("R7", "FT13")
async def test_a_reader_that_stops_anywhere_goes_on_from_its_last_sequence(live: Client) -> None:
    turn = await live.turns.start(given(*(call(f"s{i}", "ledger_idempotent") for i in range(1, 4))))
    whole = [e.event_id async for e in turn.events()]
    for stop in range(1, len(whole)):
        first = await until(turn, lambda e, stop=stop: e.sequence == stop)
        rest = [e.event_id async for e in turn.events(stop)]
        assert [e.event_id for e in first] + rest == whole


@pytest.mark.requirement("G1")
async def test_the_callers_trace_stands_on_every_event(live_server: LiveServer) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with grpc.aio.insecure_channel(live_server.grpc) as channel:
        run = channel.unary_stream(
            "/kfm.turn.v1.TurnService/RunTurn",
            request_serializer=rpc.RunTurnRequest.SerializeToString,
            response_deserializer=rpc.RunTurnResponse.FromString,
        )
        request = rpc.RunTurnRequest(turn={"input": [{"text": "what is 2 + 2?"}]}, idempotency_key="traced")
        metadata = (("traceparent", f"00-{trace}-00f067aa0ba902b7-01"),)
        updates = [u async for a in run(request, timeout=20, metadata=metadata) for u in a.updates]
    events = [u.event for u in updates if u.HasField("event")]
    assert {e.trace_id for e in events} == {trace}
    assert len({e.tenant_id for e in events}) == len({e.session_id for e in events}) == 1


async def test_a_turns_timeout_ends_it_also_while_it_waits_for_a_person_or_its_place(
    live: Client, gate: Gate
) -> None:
    asked = await live.turns.start(given(question("ask")), timeout=0.2)
    first = await held(live, gate)
    queued = await live.turns.start(MESSAGE, session_id=first.session_id, timeout=0.2)
    paused = await held(live, gate, timeout=0.3)
    await paused.pause()
    for turn in (asked, queued, paused):
        events = [e async for e in turn.events(timeout=10)]
        assert last_of(events).outcome == Outcome.TIMED_OUT
    assert (await first.get()).state == TurnState.RUNNING
    gate.open()
    assert (await first.result()).outcome == Outcome.SUCCEEDED


async def test_a_paused_turn_that_waits_in_the_queue_starts_nothing_when_its_turn_comes(
    live: Client, gate: Gate
) -> None:
    first = await held(live, gate)
    second = await live.turns.start(MESSAGE, session_id=first.session_id)
    await second.pause()
    gate.open()
    await until(second, waits(WaitReason.PAUSED))
    assert [s.state for s in (await second.get()).steps] == [StepState.PENDING]
    await second.resume()
    assert (await second.result()).outcome == Outcome.SUCCEEDED


async def test_a_cancelled_turn_can_be_retried_from_where_it_stood(live: Client, gate: Gate) -> None:
    turn = await held(live, gate)
    await turn.cancel()
    gate.open()
    again = await turn.retry()
    done = await again.result()
    assert (done.outcome, done.parent_turn_id) == (Outcome.SUCCEEDED, turn.id)
    assert [len(s.attempts) for s in done.steps] == [1, 1]


@pytest.mark.requirement("R7")
async def test_many_readers_of_one_turn_see_the_same(live: Client, gate: Gate) -> None:
    turn = await held(live, gate)

    async def read(after: int) -> list[int]:
        return [e.sequence async for e in live.turns.attach(turn.id).events(after)]

    reading = [asyncio.create_task(read(after), name=f"reader {after}") for after in (0, 0, 1, 2, 3)]
    await live.turns.run("what is 1 + 1?")
    gate.open()
    seen = await asyncio.gather(*reading)
    last = seen[0][-1]
    assert seen == [list(range(after + 1, last + 1)) for after in (0, 0, 1, 2, 3)]


@pytest.mark.requirement("E1")
async def test_a_personality_that_is_not_installed_is_refused(live_server: LiveServer) -> None:
    async with Client(live_server.grpc) as kfm:
        with pytest.raises(errors.PersonalityNotFound) as refused:
            await kfm.turns.start("what is 1 + 1?", personality="nobody")
        assert refused.value.metadata["personality"] == "nobody"
