"""`kfm worker ghosts`: an operator sees and removes members of a pool's group whose processes are gone."""

import asyncio
import json
import os
import sys
from typing import Any

import pytest
from kfm_server.bus.iggy import IggyBroker
from kfm_server.ports.broker import STEPS
from kfm_server.ports.iggy_settings import IggySettings
from kfm_server.worker.ghosts import group_of

from tests.support.iggy import Iggy

PARTITIONS = 4
SECONDS = 30.0


async def kfm(settings: IggySettings, *arguments: str) -> tuple[int, str, str]:
    """The command, told of the broker by its environment: exit code, output and errors."""
    environment = {
        "KFM_IGGY_ADDRESS": settings.address,
        "KFM_IGGY_STREAM": settings.stream,
        "KFM_IGGY_USERNAME": settings.username,
        "KFM_IGGY_PASSWORD": settings.password.reveal(),
        "KFM_PARTITIONS": str(PARTITIONS),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from kfm_server.doors.cli.main import main; main()", "worker", "ghosts", "--pool", "gpu", *arguments,
        env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(SECONDS):
        output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def seen(settings: IggySettings, *arguments: str) -> Any:
    """What it says, as JSON."""
    code, output, errors = await kfm(settings, "--output", "json", *arguments)
    assert code == 0, errors
    return json.loads(output)


@pytest.mark.requirement("B1")
async def test_members_of_a_pools_group_are_counted_and_the_group_is_made_anew_when_asked(iggy: Iggy) -> None:
    settings = iggy.settings()
    async with (
        IggyBroker.open(settings, (STEPS,), PARTITIONS) as broker,
        broker.group(group_of("gpu"), STEPS) as group,
    ):
        await group.join()
        assert await seen(settings) == {"pool": "gpu", "members": 1, "connected": 1, "ghosts": 0}
        code, _, errors = await kfm(settings, "--remove")
        assert code == 2 and "--yes" in errors
        assert (await seen(settings, "--remove", "--yes"))["ghosts"] == 0
        assert await group.assigned() == {}, "its members have to join again"


async def test_a_broker_that_does_not_answer_is_told_by_exit_code_nine(iggy: Iggy) -> None:
    settings = IggySettings(address="127.0.0.1:1", password=iggy.settings().password)
    code, _, errors = await kfm(settings)
    assert code == 9 and "127.0.0.1:1" in errors
