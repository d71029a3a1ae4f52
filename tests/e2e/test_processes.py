"""One database, several processes with roles: partitions are shared, and it does not matter which process a client asks."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from xenocomm import Client, errors
from xenocomm._gen.types import StepDelta

from tests.e2e.talker import ROUND
from tests.support.live import LiveServer, a_moment
from tests.support.plans import call, given

pytestmark = pytest.mark.requirement("R10")
PIECES = 4 * ROUND


@dataclass
class Site:
    """Servers on one database."""

    directory: Path
    database: str

    @asynccontextmanager
    async def servers(self, **roles: str) -> AsyncGenerator[list[LiveServer]]:
        """Running, each by its name with its role; stopped well at the end."""
        made = [
            LiveServer(
                self.directory / name,
                tools="tests.e2e.talker:TOOLS",
                database_url=self.database,
                environment={"KFM_ROLE": role},
            )
            for name, role in roles.items()
        ]
        try:
            await asyncio.gather(*(asyncio.to_thread(server.start) for server in made))
            yield made
            codes = await asyncio.gather(*(asyncio.to_thread(server.stop) for server in made))
            assert codes == [0] * len(made)
        finally:
            for server in made:
                server.kill()


@pytest.fixture
def site(tmp_path: Path, database: str) -> Site:
    return Site(tmp_path, database)


async def owned(servers: list[LiveServer], *shares: int) -> None:
    """Wait, bounded, until the servers own as many partitions each, in any order."""
    async with asyncio.timeout(30):
        while True:
            found = [await asyncio.to_thread(s.gauge, "kfm_partitions_owned") for s in servers]
            if sorted(found) == sorted(shares):
                return
            await a_moment()


async def finished(servers: list[LiveServer], turns: int) -> list[int]:
    """How many turns ended in each process, once so many have been counted."""
    async with asyncio.timeout(30):
        while True:
            found = [await asyncio.to_thread(_finished, server) for server in servers]
            if sum(found) == turns:
                return found
            await a_moment()


def _finished(server: LiveServer) -> int:
    lines = server.metrics().splitlines()
    return sum(int(float(x.split()[1])) for x in lines if x.startswith("kfm_turns_finished_total{"))


async def test_what_is_asked_at_a_process_that_owns_nothing_runs_where_it_is_owned(site: Site) -> None:
    async with site.servers(front="api", one="runtime", two="runtime") as (front, one, two):
        await owned([front, one, two], 0, 8, 8)
        async with Client(front.grpc) as kfm:
            turns = await asyncio.gather(*(kfm.turns.run(f"what is {n} + 1 ?") for n in range(12)))
            assert [turn.output[0].text for turn in turns] == [f"{n} + 1 = {n + 1}" for n in range(12)]
            again = await kfm.turns.get(turns[0].turn_id)
            assert again.state == turns[0].state
        ran = await finished([front, one, two], 12)
        assert ran[0] == 0 and min(ran[1:]) > 0, ran


@pytest.mark.requirement("R7")
async def test_a_watcher_anywhere_sees_every_delta_of_a_turn_that_runs_elsewhere(site: Site) -> None:
    heard = site.directory / "heard"
    plan = given(call("talk", "talker", heard=str(heard), pieces=PIECES))

    async def listen(server: LiveServer, turn_id: str, all_heard: list[list[int]]) -> list[int]:
        """The numbers of the pieces that came; the talker goes on once all have heard one: who is slow may miss some."""
        numbers: list[int] = []
        all_heard.append(numbers)
        async with Client(server.grpc) as kfm:
            async for update in kfm.turns.attach(turn_id).updates():
                delta = update.delta
                if isinstance(delta, StepDelta) and delta.progress:
                    before = min(map(len, all_heard))
                    numbers.append(int(delta.progress[:6]))
                    if min(map(len, all_heard)) > before:
                        with heard.open("ab") as file:
                            file.write(b".")
        return numbers

    async with site.servers(front="api", other="api", both="api,runtime", one="runtime") as servers:
        front, other, both, one = servers
        await owned([both, one], 8, 8)
        for number in range(3):  # sessions of both owners
            async with Client(front.grpc) as kfm:
                turn = await kfm.turns.start(plan, idempotency_key=f"talk{number}")
            all_heard: list[list[int]] = []
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                watching = [
                    group.create_task(listen(server, turn.id, all_heard)) for server in (front, other, both)
                ]
                while 3 not in [await asyncio.to_thread(s.gauge, "kfm_watchers") for s in (both, one)]:
                    await a_moment()  # until all three stand at the owner, itself or by their process
                heard.touch()
            assert [task.result() for task in watching] == [list(range(PIECES))] * 3
            heard.unlink()
            for server in (both, one):  # or the next round would count those of this one
                await asyncio.to_thread(server.await_gauge, "kfm_watchers", 0)


async def test_a_process_without_the_role_api_refuses_clients_and_says_what_it_is(site: Site) -> None:
    async with site.servers(front="api", one="runtime") as (front, one):
        async with Client(one.grpc) as kfm:
            with pytest.raises(errors.Unimplemented, match="role api"):
                await kfm.turns.run("what is 1 + 1 ?")
            with pytest.raises(errors.Unimplemented, match="role api"):
                await kfm.turns.attach("turn_1").events().__anext__()
            info = await kfm.server_info()
        assert [c for c in info.capabilities if c.startswith("role.")] == ["role.runtime"]
        assert json.loads(await asyncio.to_thread(one.get, "/health/ready"))["roles"] == ["runtime"]
        assert json.loads(await asyncio.to_thread(front.get, "/health/ready"))["roles"] == ["api"]


async def test_partitions_spread_evenly_over_who_is_there(site: Site) -> None:
    async with site.servers(one="api,runtime") as (one,):
        await owned([one], 16)
        async with site.servers(two="runtime") as (two,):
            await owned([one, two], 8, 8)
            async with site.servers(three="runtime", four="runtime") as (three, four):
                await owned([one, two, three, four], 4, 4, 4, 4)
                await asyncio.to_thread(three.stop)
                await owned([one, two, four], 5, 5, 6)
            await owned([one, two], 8, 8)
            await asyncio.to_thread(two.kill)
            await owned([one], 16)
            await asyncio.to_thread(two.start)
            await owned([one, two], 8, 8)
        await owned([one], 16)
