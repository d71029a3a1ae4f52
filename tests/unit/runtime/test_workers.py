"""The hub of worker pools: to whom an attempt goes, when it is lost, and which result counts."""

import asyncio

import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm_server import metrics
from kfm_server.ports.attempt_refs import MOST_HELD
from kfm_server.ports.steps import STOPPED, AttemptLost, AttemptResult
from kfm_server.runtime.pools.hub import LEASE_SECONDS
from kfm_server.runtime.pools.lease_queue import START_SECONDS
from kfm_server.turns.state import NEVER_STARTED
from prometheus_client import REGISTRY

from tests.support.hub import LOST, NOW_US, US, Hub, attempt, good, rounds

pytestmark = [pytest.mark.requirement("R10", "B1"), pytest.mark.timeout(20)]


async def lost(task: asyncio.Task[AttemptResult]) -> int:
    """When the attempt has surely ended, which was lost."""
    with pytest.raises(AttemptLost) as told:
        await task
    return told.value.gone_us


async def cancelled(task: asyncio.Task[AttemptResult], why: str | None = None) -> None:
    """The attempt is taken back, or let go."""
    task.cancel(why)
    with pytest.raises(asyncio.CancelledError):
        await task


def late_results() -> float:
    """How many were counted."""
    (metric,) = metrics.LATE_RESULTS.collect()
    return metric.samples[0].value


def waiting_of_pool() -> tuple[float | None, float | None]:
    """What /metrics says: attempts that wait, and for how long the oldest has."""
    said, pool = REGISTRY.get_sample_value, {"pool": "gpu"}
    return said("kfm_pool_waiting", pool), said("kfm_pool_oldest_seconds", pool)


# To whom it goes


async def test_an_attempt_without_a_pool_is_performed_here() -> None:
    hub = Hub()
    assert (await (await hub.run(attempt(pool="")))).output_json == '"here"'


async def test_an_attempt_goes_to_the_worker_with_most_places() -> None:
    hub = Hub()
    small, large = hub.worker("small", 2), hub.worker("large", 3)
    tasks = [await hub.run(attempt(step=f"s{n}")) for n in range(5)]
    assert (len(small.leased), len(large.leased)) == (2, 3)
    assert large.leased[0] == ("s0", 1)
    sixth = await hub.run(attempt(step="s5"))
    assert not sixth.done() and len(small.leased) + len(large.leased) == 5
    small.ends(attempt(step=small.leased[0][0]))
    assert small.leased[-1] == ("s5", 1)
    for task in (*tasks, sixth):
        task.cancel()


async def test_metrics_tell_how_many_attempts_wait_for_a_worker_and_how_long_the_oldest_has() -> None:
    hub = Hub()
    worker = hub.worker("w")
    tasks = [await hub.run(attempt(step="s0"))]
    assert not any(waiting_of_pool())
    tasks.append(await hub.run(attempt(step="s1")))
    await hub.pass_(2, worker)
    tasks.append(await hub.run(attempt(step="s2")))
    assert waiting_of_pool() == (2, 2)
    worker.ends(attempt(step="s0"))
    assert waiting_of_pool() == (1, 0)
    await cancelled(tasks[2])
    assert waiting_of_pool() == (0, 0)
    await cancelled(tasks[1])


async def test_a_lease_says_all_that_its_worker_needs() -> None:
    hub = Hub()
    worker = hub.worker("w")
    await hub.run(attempt(3, effect=types.EFFECT_CONTRACT_IDEMPOTENT))
    (lease,) = worker.heard("lease")
    assert (lease.ref.session_id, lease.ref.turn_id, lease.ref.epoch) == ("ses_1", "trn_1", 1)
    assert (lease.tool, lease.key, lease.arguments_json) == ("tool", "trn_1:a", "{}")
    assert lease.effect == types.EFFECT_CONTRACT_IDEMPOTENT
    assert lease.start_within.ToTimedelta().total_seconds() == START_SECONDS
    assert lease.start_by.ToMicroseconds() == NOW_US + START_SECONDS * US
    assert lease.timeout.ToTimedelta().total_seconds() == 10


async def test_an_attempt_waits_for_a_worker_until_its_latest_start_and_that_is_no_try() -> None:
    hub = Hub()
    task = await hub.run(attempt())
    await hub.pass_(59)
    assert not task.done()
    await hub.pass_(2)
    failure = (await task).failure
    assert failure is not None and failure.reason in NEVER_STARTED and failure.retryable
    assert "none is connected" in failure.message
    worker = hub.worker("w", capacity=1)
    first, second = await hub.run(attempt(2)), await hub.run(attempt(3))
    await hub.pass_(61, worker)
    busy = (await second).failure
    assert busy is not None and "all 1 workers are busy" in busy.message
    first.cancel()


async def test_a_worker_that_comes_takes_what_waits_in_its_order() -> None:
    hub = Hub()
    tasks = [await hub.run(attempt(step=f"s{n}")) for n in range(3)]
    worker = hub.worker("w", 2)
    assert worker.leased == [("s0", 1), ("s1", 1)]
    worker.ends(attempt(step="s1"))
    assert worker.leased[-1] == ("s2", 1)
    assert (await tasks[1]).worker == "w"


async def test_two_pools_do_not_mix() -> None:
    hub = Hub()
    other = hub.worker("w", pool="cpu")
    task = await hub.run(attempt(pool="gpu"))
    assert other.leased == []
    other.beat(attempt(pool="gpu"))
    other.ends(attempt(pool="gpu"))
    await rounds()
    assert not task.done()
    worker = hub.worker("w", pool="gpu")
    assert worker.leased == [("a", 1)]
    other.ends(attempt(pool="gpu"))
    await rounds()
    assert not task.done()
    worker.ends(attempt(pool="gpu"))
    assert (await task).status == ev.STEP_STATUS_SUCCEEDED


async def test_an_unsure_owner_leases_nothing() -> None:
    hub = Hub(sure=False)
    worker = hub.worker("w")
    result = await (await hub.run(attempt()))
    assert result.failure is not None and result.failure.reason == "REASON_FENCED"
    assert worker.leased == []


async def test_what_one_worker_declines_goes_to_another() -> None:
    hub = Hub()
    first, second = hub.worker("first", 2), hub.worker("second", 1)
    task = await hub.run(attempt())
    assert first.leased == [("a", 1)]
    first.declines(attempt())
    assert second.leased == [("a", 1)]
    second.declines(attempt())
    assert (len(first.leased), len(second.leased)) == (1, 1)
    hub.pools.connections.heartbeat(first.at, [])  # it may have a place again
    assert len(first.leased) == 2
    first.ends(attempt())
    assert (await task).worker == "first"


async def test_a_worker_without_places_gets_nothing_until_it_has_some() -> None:
    hub = Hub()
    worker = hub.worker("w")
    hub.pools.connections.capacity(worker.at, 0)
    await hub.run(attempt())
    assert worker.leased == []
    hub.pools.connections.capacity(worker.at, 1)
    assert worker.leased == [("a", 1)]


async def test_no_place_is_lost_however_results_heartbeats_and_acknowledgements_cross() -> None:
    hub = Hub()
    worker = hub.worker("w", 1)
    for number in range(1, 4):
        task = await hub.run(attempt(number))
        assert worker.leased[-1] == ("a", number)
        worker.ends(attempt(number))
        worker.beat(attempt(number))  # it holds a result that is not acknowledged
        result = await task
        assert result.recorded is not None
        result.recorded(True)
    worker.beat(attempt(9, session="ses_other"))  # of another server
    blocked = await hub.run(attempt(4))
    assert worker.leased[-1] == ("a", 3)
    hub.pools.connections.heartbeat(worker.at, [])
    assert worker.leased[-1] == ("a", 4)
    blocked.cancel()


# When it is lost


async def test_a_worker_that_is_silent_for_a_lease_has_lost_what_it_held() -> None:
    hub = Hub()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    await hub.pass_(10, worker)
    assert not task.done()
    await hub.pass_(LEASE_SECONDS + 0.1)
    assert await lost(task) >= NOW_US + (START_SECONDS + 10) * US
    assert worker.heard("leaving")
    await hub.pass_(10)  # and nothing else happens to it
    again = hub.worker("w")
    task = await hub.run(attempt(2))
    assert again.leased == [("a", 2)]
    task.cancel()


async def test_a_stream_that_breaks_and_comes_back_within_the_lease_loses_nothing() -> None:
    hub = Hub()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    worker.disconnect()
    await hub.pass_(LEASE_SECONDS - 0.5)
    worker.connect(attempt())
    await hub.pass_(LEASE_SECONDS + 1, worker)
    assert not task.done()
    assert worker.leased == []
    worker.ends(attempt())
    assert (await task).worker == "w"


async def test_a_worker_that_was_started_anew_without_the_attempt_has_lost_it_at_once() -> None:
    hub = Hub()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    worker.instance = "i2"
    worker.connect()
    assert await lost(task) == 0
    assert worker.leased == []


async def test_the_same_process_without_the_attempt_never_got_it_and_is_leased_it_again() -> None:
    hub = Hub()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    worker.connect()
    assert worker.leased == [("a", 1)]
    worker.ends(attempt())
    assert (await task).worker == "w"


async def test_a_worker_that_does_not_tell_its_instance_is_taken_for_another_process() -> None:
    hub = Hub()
    worker = hub.worker("w", instance="")
    task = await hub.run(attempt())
    worker.connect()
    assert await lost(task) == 0


async def test_a_stream_that_is_replaced_is_told_to_go_and_its_end_changes_nothing() -> None:
    hub = Hub()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    old, before = worker.send, worker.said
    worker.connect(attempt())
    assert before[-1].HasField("leaving")
    hub.pools.connections.disconnect(worker.at, old)
    await hub.pass_(LEASE_SECONDS + 1, worker)
    worker.ends(attempt())
    assert (await task).status == ev.STEP_STATUS_SUCCEEDED


async def test_an_attempt_that_waits_again_and_turns_out_to_run_is_not_leased_a_second_time() -> None:
    hub = Hub()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    worker.capacity = 0
    worker.connect()  # it says that it does not hold it
    hub.pools.connections.capacity(worker.at, 0)
    worker.beat(attempt())  # and then that it does
    other = hub.worker("other")
    assert other.leased == []
    worker.ends(attempt())
    assert (await task).worker == "w"


async def test_a_worker_that_does_not_end_an_attempt_by_its_deadline_is_told_to_stop() -> None:
    for effect, status in (
        (types.EFFECT_CONTRACT_IDEMPOTENT, ev.STEP_STATUS_FAILED),
        (types.EFFECT_CONTRACT_AT_MOST_ONCE, ev.STEP_STATUS_UNKNOWN),
    ):
        hub = Hub()
        worker = hub.worker("w")
        task = await hub.run(attempt(effect=effect))
        await hub.pass_(13, worker)
        assert not task.done()
        await hub.pass_(2, worker)
        result = await task
        assert result.status == status
        assert result.failure is not None and result.failure.reason == "REASON_STEP_TIMEOUT"
        assert [cancel.reason for cancel in worker.heard("cancel")] == ["deadline"]


# Whose result counts


async def test_a_result_is_acknowledged_only_once_it_is_recorded() -> None:
    hub = Hub()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    worker.ends(attempt())
    result = await task
    await hub.pass_(2, worker)
    assert worker.acks == []
    assert result.recorded is not None
    result.recorded(True)
    assert worker.acks == [True]


async def test_a_result_that_is_told_again_because_its_acknowledgement_was_lost_is_no_late_one() -> None:
    hub, before = Hub(), late_results()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    worker.ends(attempt())
    worker.ends(attempt())
    result = await task
    assert result.recorded is not None
    result.recorded(True)
    worker.connect(attempt())
    worker.ends(attempt())
    assert worker.acks == [True]
    await hub.pass_(LEASE_SECONDS + 1, worker)
    assert worker.acks == [True] and late_results() == before


async def test_a_result_that_was_told_twice_and_recorded_once_is_not_counted_as_late() -> None:
    hub, before = Hub(), late_results()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    worker.ends(attempt())
    await rounds()
    worker.ends(attempt())  # before the first one was recorded
    result = await task
    assert result.recorded is not None
    result.recorded(True)
    await hub.pass_(LEASE_SECONDS + 1, worker)
    assert worker.acks == [True] and late_results() == before


async def test_a_result_that_comes_before_its_attempt_is_adopted_is_kept_for_it() -> None:
    hub = Hub()
    worker = hub.worker("w")
    worker.connect(attempt())
    worker.ends(attempt(), good("7"))
    await hub.pass_(LEASE_SECONDS - 1, worker)
    assert (await (await hub.adopt(attempt()))).output_json == "7"


async def test_an_attempt_that_is_adopted_before_its_worker_tells_of_it_waits_for_that() -> None:
    hub = Hub()
    task = await hub.adopt(attempt())
    await hub.pass_(LEASE_SECONDS - 1)
    worker = hub.worker("w")
    worker.beat(attempt())
    await hub.pass_(LEASE_SECONDS + 1, worker)
    assert worker.leased == [] and not task.done()
    worker.beat(attempt())
    worker.ends(attempt(), good("8"))
    assert (await task).output_json == "8"


async def test_an_adopted_attempt_that_no_worker_tells_of_within_a_lease_is_lost() -> None:
    hub = Hub()
    task = await hub.adopt(attempt())
    await hub.pass_(LEASE_SECONDS - 0.1)
    assert not task.done()
    await hub.pass_(0.2)
    # Its owner is gone, and can have handed it over only before: it need not be waited for as long as for a place.
    assert await lost(task) < attempt().deadline_us


async def test_what_is_withdrawn_ends_if_no_worker_has_it_and_goes_on_if_one_has() -> None:
    hub = Hub()
    asked = attempt()
    waiting = await hub.run(asked)
    hub.pools.withdraw(asked.turn_id, asked.step_key, asked.attempt)
    result = await waiting
    assert result.failure is not None and result.failure.reason == "REASON_POOL_UNAVAILABLE"
    worker = hub.worker("w")
    worker.connect()
    running = await hub.run(asked)
    hub.pools.withdraw(asked.turn_id, asked.step_key, asked.attempt)
    worker.ends(asked)
    assert (await running).status == ev.STEP_STATUS_SUCCEEDED


async def test_who_takes_over_after_a_lease_waits_half_as_long_for_the_worker() -> None:
    hub = Hub()
    task = await hub.adopt(attempt(), soon=True)
    await hub.pass_(LEASE_SECONDS / 2 + 0.1)
    await lost(task)


async def test_a_late_result_is_refused_after_a_lease_and_counted_once_and_only_by_the_owner() -> None:
    before = late_results()
    hub = Hub(mine=set())
    worker = hub.worker("w")
    worker.connect(attempt())
    worker.ends(attempt())
    worker.ends(attempt())
    await hub.pass_(3 * LEASE_SECONDS, worker)
    assert worker.acks == [] and late_results() == before
    assert hub.pools.unclaimed()  # another process may ask for it
    hub.mine = {"ses_1"}
    await hub.pass_(LEASE_SECONDS + 0.1, worker)
    assert worker.acks == [False] and late_results() == before + 1
    await hub.pass_(3 * LEASE_SECONDS, worker)
    assert worker.acks == [False] and late_results() == before + 1


async def test_the_result_of_an_attempt_that_another_worker_has_does_not_count() -> None:
    hub, before = Hub(), late_results()
    worker, thief = hub.worker("w"), hub.worker("thief")
    task = await hub.run(attempt())
    holder, other = (worker, thief) if worker.leased else (thief, worker)
    other.beat(attempt())
    other.ends(attempt(), good('"stolen"'))
    await hub.pass_(LEASE_SECONDS + 1, worker, thief)
    assert other.acks == [False] and late_results() == before + 1
    assert not task.done()
    holder.ends(attempt())
    assert (await task).output_json == "1"


async def test_the_result_of_an_attempt_that_was_never_leased_does_not_count() -> None:
    hub = Hub()
    worker = hub.worker("w", 1)
    first = await hub.run(attempt())
    second = await hub.run(attempt(step="b"))
    worker.ends(attempt(step="b"))
    await rounds()
    assert not second.done()
    worker.ends(attempt())
    assert (await first).output_json == "1"
    second.cancel()


async def test_results_that_nobody_asks_for_are_kept_up_to_a_bound() -> None:
    hub = Hub(mine=set())
    worker = hub.worker("w")
    for number in range(MOST_HELD + 50):
        worker.ends(attempt(number))
    assert len(worker.at.results) == MOST_HELD
    large = hub.worker("large")
    for number in range(10):
        large.ends(attempt(number), good("1" * (10 << 20)))
    assert len(large.at.results) == 6


# When it is taken back


async def test_an_attempt_that_is_taken_back_is_stopped_at_its_worker() -> None:
    hub = Hub()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    await cancelled(task, STOPPED)
    assert [c.ref.step_key for c in worker.heard("cancel")] == ["a"]


async def test_an_attempt_that_is_let_go_runs_on_and_is_adopted() -> None:
    hub = Hub()
    worker = hub.worker("w")
    await cancelled(await hub.run(attempt()))
    assert worker.heard("cancel") == []
    task = await hub.adopt(attempt())
    await hub.pass_(LEASE_SECONDS + 1, worker)
    worker.ends(attempt())
    assert (await task).worker == "w"


async def test_what_waits_and_is_taken_back_is_leased_to_nobody() -> None:
    hub = Hub()
    await cancelled(await hub.run(attempt()), STOPPED)
    assert hub.worker("w").leased == []
    assert hub.pools.show("")[1] == []


async def test_a_process_that_stops_sends_its_workers_away_and_says_that_what_waited_never_started() -> None:
    hub = Hub()
    worker = hub.worker("w")
    running, waiting = await hub.run(attempt()), await hub.run(attempt(step="b"))
    hub.pools.leave("the server is stopping")
    failure = (await waiting).failure
    assert failure is not None and failure.reason in NEVER_STARTED
    assert [told.reason for told in worker.heard("leaving")] == ["the server is stopping"]
    assert not running.done()
    later = (await (await hub.run(attempt(step="c")))).failure
    assert later is not None and later.reason in NEVER_STARTED
    running.cancel()


async def test_a_piece_of_output_counts_from_who_has_the_attempt() -> None:
    hub = Hub()
    worker, other = hub.worker("w", 2), hub.worker("other", 1)
    task = await hub.run(attempt())
    hub.pools.connections.delta(other.at, worker.heard("lease")[0].ref, "no")
    hub.pools.connections.delta(worker.at, worker.heard("lease")[0].ref, "half")
    assert hub.told == ["half"]
    task.cancel()


# Other processes


async def test_a_process_that_says_that_its_worker_is_gone_loses_the_attempt() -> None:
    hub = Hub()
    process = hub.worker("p", is_process=True)
    task = await hub.run(attempt())
    process.ends(attempt(), LOST)
    assert await lost(task) > NOW_US
    assert process.acks == [True]


async def test_a_worker_may_not_say_so_of_itself() -> None:
    hub = Hub()
    worker = hub.worker("w")
    task = await hub.run(attempt())
    worker.ends(attempt(), LOST)
    assert (await task).status == ev.STEP_STATUS_UNKNOWN


async def test_an_attempt_follows_its_worker_that_moves_from_another_process() -> None:
    hub = Hub()
    process = hub.worker("p", is_process=True)
    task = await hub.run(attempt())
    worker = hub.worker("w")
    worker.beat(attempt())
    process.ends(attempt(), LOST)  # it left there
    await rounds()
    assert not task.done()
    worker.ends(attempt(), good("9"))
    assert (await task).output_json == "9"


async def test_what_comes_from_another_process_goes_to_no_third_one() -> None:
    hub = Hub()
    process = hub.worker("p", is_process=True)
    task = asyncio.create_task(hub.pools.run_guest(attempt(), hub.progress))
    await rounds()
    assert process.leased == []
    worker = hub.worker("w")
    assert worker.leased == [("a", 1)]
    worker.ends(attempt())
    assert (await task).worker == "w"
