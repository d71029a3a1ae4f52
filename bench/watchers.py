"""A thousand and ten thousand idle watchers (PT6, FT15): burst open, churn, memory of each, reach, what is left when they are gone.

Usage: python -m bench.watchers [N ...] [--churn ROUNDS [--every SECONDS]]

A server for each N. All watch one turn that waits for a person. Opened: the stream has replayed what there was. Reached: an
answer's events have come to every watcher. Churn: in each round a tenth leaves and as many come. Prints JSON lines; a refusal is counted by its code and reason.
"""

import argparse
import asyncio
import json
import statistics
import time
import urllib.request
import uuid
from collections import Counter
from contextlib import suppress
from typing import Any

import grpc
import psutil
from kfm.event.v1 import turn_events_pb2 as events
from kfm.turn.v1 import turn_service_pb2 as service
from kfm.turn.v1 import turn_service_pb2_grpc as rpc

from bench.processes import Missing
from bench.systems import Server, scratch
from bench.work import finished, request, state_change

CHANNELS = 10
QUESTIONS = 4
GOAL_KB = 40
GOAL_REACH_S = 1.0


class Watchers:
    """Streams on one turn, and the highest sequence that each has seen."""

    def __init__(self, stubs: list[Any], turn_id: str, number: int) -> None:
        self.seen = [0] * number
        self.refused: Counter[str] = Counter()
        self._stubs, self._turn_id = stubs, turn_id
        self._behind, self._target, self._all = number, 1, asyncio.Event()

    async def watch(self, index: int) -> None:
        """Follow the turn to its end."""
        stub = self._stubs[index % len(self._stubs)]
        try:
            async for response in stub.WatchTurn(service.WatchTurnRequest(turn_id=self._turn_id)):
                before = self.seen[index]
                for update in response.updates:
                    self.seen[index] = max(self.seen[index], update.event.sequence)
                if before < self._target <= self.seen[index]:
                    self._arrived()
        except grpc.aio.AioRpcError as error:
            self.refused[f"{error.code().name}: {(error.details() or '')[:80]}"] += 1
            if self.seen[index] < self._target:
                self._arrived()

    def _arrived(self) -> None:
        self._behind -= 1
        if self._behind <= 0:
            self._all.set()

    async def reach(self, target: int, timeout: float) -> int:
        """Wait until all have seen the sequence; how many have not when the time is up."""
        self._target = target
        self._behind = sum(1 for seen in self.seen if seen < target)
        self._all.clear()
        if self._behind:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all.wait(), timeout)
        return sum(1 for seen in self.seen if seen < target)


def _questions() -> str:
    steps = [
        {
            "key": f"q{n}",
            "kind": "human",
            "instructions": "Go on?",
            "depends_on": [f"q{n - 1}"] if n > 1 else [],
        }
        for n in range(1, QUESTIONS + 1)
    ]
    return json.dumps({"plan": {"steps": steps}})


async def _waiting(stub: Any, turn_id: str) -> int:
    """The turn's last sequence, once it waits for its first answer."""
    async for response in stub.WatchTurn(service.WatchTurnRequest(turn_id=turn_id), timeout=20):
        if state_change(response, events.TURN_CHANGE_WAITING):
            return response.updates[-1].event.sequence
        if end := finished(response):
            raise Missing(f"the turn ended instead of waiting: {end}")
    raise Missing("the turn's stream ended before the turn waited")


async def run(server: Server, number: int, churn: int, every: float) -> None:
    """Open, measure, churn, answer, measure, leave, measure."""
    process = psutil.Process(server.pid)
    local = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(server.grpc, options=local) for _ in range(CHANNELS)]
    await asyncio.wait_for(asyncio.gather(*(c.channel_ready() for c in channels)), 20)
    stubs = [rpc.TurnServiceStub(c) for c in channels]
    made = request(_questions())
    submitted = await stubs[0].SubmitTurn(
        service.SubmitTurnRequest(turn=made.turn, idempotency_key=made.idempotency_key), timeout=20
    )
    turn_id = submitted.turn_id
    head = await _waiting(stubs[0], turn_id)
    before, begun = process.memory_info().rss, time.perf_counter()
    watchers = Watchers(stubs, turn_id, number)
    start = _footprint(server, process)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watchers.watch(i), name=f"watcher-{i}") for i in range(number)]
        unopened = await watchers.reach(head, 60)
        opened_s = time.perf_counter() - begun
        await asyncio.sleep(1)
        _print(
            "watchers open",
            watchers=number,
            unopened=unopened,
            refused=dict(watchers.refused),
            open_s=round(opened_s, 2),
            server_kb_each=round((process.memory_info().rss - before) / number / 1024, 1),
            goal_kb=GOAL_KB,
        )
        times: list[float] = []
        for turn in range(churn):
            await asyncio.sleep(every if turn else 0)
            begun = time.perf_counter()
            leaving = range(turn % 10, number, 10)
            for index in leaving:
                tasks[index].cancel()
            await asyncio.wait([tasks[index] for index in leaving])
            for index in leaving:
                watchers.seen[index] = 0
                tasks[index] = group.create_task(watchers.watch(index), name=f"watcher-{index}")
            await watchers.reach(head, 60)
            times.append(time.perf_counter() - begun)
        if times:
            _print(
                "watchers churned",
                rounds=churn,
                unopened=sum(1 for seen in watchers.seen if seen < head),
                refused=dict(watchers.refused),
                round_s=round(statistics.median(times), 2),
                server_kb_each=round((process.memory_info().rss - before) / number / 1024, 1),
            )
        times = []
        missed = 0
        for question in range(1, QUESTIONS + 1):
            asked = time.perf_counter()
            await stubs[0].AnswerStep(_answer(turn_id, f"q{question}"), timeout=20)
            missed += await watchers.reach(head + 1, 20)
            times.append(time.perf_counter() - asked)
            await asyncio.sleep(1)
            head = max(watchers.seen)
        _print(
            "watchers reached",
            watchers=number,
            missed=missed,
            reach_s=round(statistics.median(times), 3),
            reach_s_worst=round(max(times), 3),
            goal_s=GOAL_REACH_S,
        )
        begun = time.perf_counter()
        _, still = await asyncio.wait(tasks, timeout=20)
        for task in still:
            task.cancel()
        _print("watchers ended", left_open=len(still), s=round(time.perf_counter() - begun, 2))
    await asyncio.sleep(2)
    _print("watchers gone", start=start, left=_footprint(server, process))
    for channel in channels:
        await channel.close()


def gauge(server: Server, name: str) -> int:
    """What a gauge without labels stands at."""
    with urllib.request.urlopen(f"http://{server.endpoints['http']}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith(f"{name} "))


def _footprint(server: Server, process: psutil.Process) -> dict[str, int]:
    """What the server holds."""
    return {
        "tasks": gauge(server, "kfm_tasks"),
        "fds": process.num_fds(),
        "rss_mb": process.memory_info().rss >> 20,
    }


def _answer(turn_id: str, step_key: str) -> service.AnswerStepRequest:
    return service.AnswerStepRequest(
        turn_id=turn_id, step_key=step_key, output_json='"yes"', idempotency_key=uuid.uuid4().hex
    )


def _print(measure: str, **values: Any) -> None:
    print(json.dumps({"measure": measure, **values}), flush=True)


def main() -> None:
    """For each number start a server, watch, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--churn", type=int, default=0, help="rounds in which a tenth leaves and comes back")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two such rounds")
    options = parser.parse_args()
    for number in options.numbers:
        with scratch() as home:
            server = Server(home)
            try:
                asyncio.run(run(server, number, options.churn, options.every))
            finally:
                server.close()


if __name__ == "__main__":
    main()
