"""The configuration of a real server: read again while it runs, shown, and never lost to a mistake."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import grpc
import pytest
from kfm.admin.v1 import admin_service_pb2 as pb
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.system_events_pb2 import ConfigChangedEvent, PackChangedEvent
from kfm_server.personalities.files import write
from kfm_server.personalities.pack import load
from xenocomm import Client, Part, errors

from tests.support.live import LiveServer
from tests.support.plans import call, document

pytestmark = pytest.mark.requirement("R1")
SECONDS = 30.0
E = TypeVar("E", ConfigChangedEvent, PackChangedEvent)
GOOD = 'log_level = "info"\n[personalities.clerk]\nplanner = "rules"\n'


class Site:
    """A server with a config.toml, and what an operator asks of it."""

    def __init__(self, server: LiveServer, channel: grpc.aio.Channel, database: str) -> None:
        self.server = server
        self.channel = channel
        self.database = database
        self.file = server.home / "config.toml"

    def write(self, text: str) -> None:
        """Replace the file in one step, as editors do."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)

    async def config(self) -> pb.GetConfigResponse:
        """GetConfig."""
        ask = self.channel.unary_unary(
            "/kfm.admin.v1.AdminService/GetConfig",
            request_serializer=pb.GetConfigRequest.SerializeToString,
            response_deserializer=pb.GetConfigResponse.FromString,
        )
        return await ask(pb.GetConfigRequest(), timeout=10)

    async def reload(self) -> pb.ReloadConfigResponse:
        """ReloadConfig."""
        ask = self.channel.unary_unary(
            "/kfm.admin.v1.AdminService/ReloadConfig",
            request_serializer=pb.ReloadConfigRequest.SerializeToString,
            response_deserializer=pb.ReloadConfigResponse.FromString,
        )
        return await ask(pb.ReloadConfigRequest(), timeout=10)

    async def values(self) -> dict[str, pb.ConfigValue]:
        """The settings in force, by name."""
        return {value.name: value for value in (await self.config()).values}

    async def until(self, name: str, value_json: str) -> None:
        """Wait, bounded, until a setting is in force."""
        async with asyncio.timeout(SECONDS):
            while True:
                found = (await self.values()).get(name)
                if found is not None and found.value_json == value_json:
                    return
                await asyncio.sleep(0.02)

    async def announced(self, count: int, kind: type[E] = ConfigChangedEvent) -> list[E]:
        """The events in the journal, once there are so many."""
        db: Any = await asyncpg.connect(self.database)
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    rows = await db.fetch("select envelope from kfm.journal where topic = 'agent.system'")
                    if len(rows) >= count:
                        break
                    await asyncio.sleep(0.02)
        finally:
            await db.close()
        envelopes = [Envelope.FromString(row["envelope"]) for row in rows]
        assert all(e.event_id.startswith("evt_") and not e.sequence for e in envelopes)
        envelopes.sort(key=lambda e: e.timestamp.ToMicroseconds())
        return [kind.FromString(e.payload.value) for e in envelopes if e.type.startswith(kind.__name__)]


@pytest.fixture
async def site(tmp_path: Path, database: str) -> AsyncIterator[Site]:
    """One that runs on GOOD."""
    server = LiveServer(tmp_path, database_url=database, environment={"THE_KEY": "hush-hush"})
    (tmp_path / "config.toml").write_text(GOOD)
    try:
        await asyncio.to_thread(server.start)
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            yield Site(server, channel, database)
        assert await asyncio.to_thread(server.stop) == 0, server.log_tail()
    finally:
        server.kill()


async def test_a_changed_file_is_in_force_soon_and_is_announced_once(site: Site) -> None:
    before = await site.config()
    site.write(
        GOOD + '[models.small]\nprovider = "scripted"\napi_key = "env:THE_KEY"\n[limits]\nmax_steps = 7\n'
    )
    await site.until("limits.max_steps", "7")
    values = await site.values()
    assert values["models.small.api_key"].value_json == '"env:THE_KEY"'
    assert values["limits.max_steps"].source.endswith("config.toml:8")
    (event,) = await site.announced(1)
    after = await site.config()
    assert event.digest == after.digest != before.digest
    assert {"limits.max_steps", "models.small.model", "personalities.clerk.models"} <= set(event.changed)
    assert after.loaded_at.ToMicroseconds() > before.loaded_at.ToMicroseconds()
    async with Client(site.server.grpc, timeout=15) as client:
        too_long = document(*(call(f"s{n}", "calculator", expression="1") for n in range(8)))
        turn = await (await client.turns.start([Part(data_json=too_long)])).result(check=False)
    assert turn.error is not None and turn.error.reason == "REASON_STEP_LIMIT_EXCEEDED"


async def test_one_that_cannot_be_used_leaves_the_last_good_one_and_is_shown(site: Site) -> None:
    good = await site.config()
    site.write(GOOD + "[limits]\nmax_stepz = 7\n")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await site.reload()
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "limits.max_stepz is unknown; did you mean limits.max_steps?" in str(refused.value.details())
    shown = await site.config()
    assert "config.toml:5: limits.max_stepz is unknown" in shown.last_error
    assert (shown.digest, shown.values) == (good.digest, good.values)
    metrics = await asyncio.to_thread(site.server.metrics)
    assert "kfm_config_in_error 1.0" in metrics
    assert "kfm_config_loaded_at_seconds 1." in metrics  # 1e9 and more: that of the start, or of a reload
    assert 'kfm_config_reloads_total{outcome="refused"} 1.0' in metrics
    assert "config_refused" in site.server.log_tail()
    ready = await asyncio.to_thread(site.server.get, "/health/ready")
    assert json.loads(ready)["parts"]["config"] is False
    site.write(GOOD)
    changed = await site.reload()
    assert not changed.changed and not (await site.config()).last_error
    assert "kfm_config_in_error 0.0" in await asyncio.to_thread(site.server.metrics)


async def test_a_file_that_is_gone_changes_nothing(site: Site) -> None:
    await asyncio.to_thread(site.file.unlink)
    with pytest.raises(grpc.aio.AioRpcError, match="there is no such file"):
        await site.reload()
    assert "personalities.clerk.planner" in await site.values()


async def test_what_needs_a_restart_is_told_and_stays_as_it_was(site: Site) -> None:
    site.write('max_streams = 77\nlog_level = "error"\n')
    changed = await site.reload()
    assert list(changed.need_restart) == ["max_streams"]
    assert {"log_level", "max_streams", "personalities.clerk.planner"} <= set(changed.changed)
    values = await site.values()
    assert (values["max_streams"].value_json, values["max_streams"].reloads) == ("12000", False)
    assert (values["log_level"].value_json, values["log_level"].reloads) == ('"error"', True)
    (event,) = await site.announced(1)
    assert "max_streams" not in event.changed
    assert changed.digest == event.digest


async def test_sighup_reads_at_once(site: Site) -> None:
    site.write('log_level = "warning"\n')
    assert site.server.process is not None
    os.kill(site.server.process.pid, signal.SIGHUP)
    await site.until("log_level", '"warning"')


async def test_a_secret_in_a_file_of_its_own_is_read_again_when_it_changes(site: Site) -> None:
    key = site.server.home / "key"
    await asyncio.to_thread(key.write_text, "one-secret")
    site.write(GOOD + '[models.small]\nprovider = "scripted"\napi_key = "file:key"\n')
    await site.reload()
    await asyncio.to_thread(key.write_text, "another-secret")
    events = await site.announced(2)
    assert list(events[-1].changed) == ["models.small.api_key"]


async def test_a_personality_that_is_new_can_be_used_and_one_that_is_gone_cannot(site: Site) -> None:
    async with Client(site.server.grpc, timeout=15) as client:
        await (await client.turns.start("what is 1 + 1 ?", personality="clerk")).result()
        site.write('[personalities.other]\nplanner = "rules"\n')
        await site.reload()
        await (await client.turns.start("what is 1 + 1 ?", personality="other")).result()
        with pytest.raises(errors.PersonalityNotFound):
            await client.turns.start("what is 1 + 1 ?", personality="clerk")


@pytest.mark.parametrize(
    "failpoint", ["inbox.post.after:1", "journal.append.before:1", "journal.append.after:1"]
)
async def test_a_change_whose_process_dies_is_announced_exactly_once(
    tmp_path: Path, database: str, failpoint: str
) -> None:
    server = LiveServer(tmp_path, database_url=database)
    try:
        await asyncio.to_thread(server.start, failpoint=failpoint)
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            site = Site(server, channel, database)
            site.write(GOOD)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await site.reload()
            assert await asyncio.to_thread(server.await_death, SECONDS)
            await asyncio.to_thread(server.start)
            (event,) = await site.announced(1)
            await asyncio.to_thread(server.stop)
            assert await site.announced(1) == [event]
    finally:
        server.kill()


@pytest.mark.requirement("K2")
async def test_a_pack_that_changes_is_announced_with_its_digests_and_may_be_the_default(site: Site) -> None:
    directory = site.server.home / "personalities" / "teller"
    text = b"name: teller\nversion: %b\ndescription: Tells.\nuses: [calculator]\n"
    write({"manifest.yaml": text % b"1.0.0"}, directory)
    first = load(directory).digest
    (event,) = await site.announced(1, PackChangedEvent)
    assert event == PackChangedEvent(pack="teller", version="1.0.0", digest=first)
    site.write('default_personality = "teller"\n' + GOOD)
    await site.reload()
    await site.announced(2)
    (directory / "manifest.yaml").write_bytes(text % b"1.1.0")
    event = (await site.announced(3, PackChangedEvent))[-1]
    assert (event.version_before, event.digest_before, event.version) == ("1.0.0", first, "1.1.0")
    async with Client(site.server.grpc, timeout=15) as client:
        (default,) = [p for p in await client.personalities.list() if p.is_default]
        assert default.name == "teller"
        await client.turns.run("what is 1 + 1 ?")
    (directory / "manifest.yaml").write_bytes(text % b"one")
    event = (await site.announced(4, PackChangedEvent))[-1]
    assert (event.version, event.problems[0][:24]) == ("1.1.0", "manifest.yaml:2: version")
    site.write('default_personality = "tellr"\n' + GOOD)
    with pytest.raises(
        grpc.aio.AioRpcError, match="tellr, which there is not; did you mean teller"
    ) as refused:
        await site.reload()
    assert "config.toml:1: default_personality" in str(refused.value.details())
