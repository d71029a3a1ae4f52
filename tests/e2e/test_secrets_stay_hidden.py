"""Secrets planted wherever a server takes one, and then looked for in everything that it writes or says."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from kfm.admin.v1 import admin_service_pb2 as pb
from xenocomm import Client, XenocommError

from tests.support.collector import collector
from tests.support.live import LiveServer
from tests.support.model_server import ModelServer

pytestmark = pytest.mark.requirement("R1", "V1", "G7")
TOKEN, HEADER = "canary-of-the-token", "canary-of-the-header"
LITERAL, NAMED, FILED, MISPLACED = (
    "canary-in-the-file",
    "canary-in-the-env",
    "canary-in-a-file",
    "canary-misplaced",
)
SAID = "canary-of-what-was-said"
SECRETS = (TOKEN, HEADER, LITERAL, NAMED, FILED, MISPLACED)


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    """A model's endpoint that takes one key."""
    server = ModelServer(token=FILED)
    server.start()
    yield server
    server.stop()


def configured(url: str) -> str:
    """Three models: two with a key that is refused, one whose key stands in a file of its own."""
    models = {"literal": LITERAL, "named": "env:THE_KEY", "filed": "file:key"}
    text = "".join(
        f'[models.{name}]\nprovider = "openai"\nmodel = "scripted"\nbase_url = "{url}"\napi_key = "{key}"\n'
        for name, key in models.items()
    )
    return text + "".join(
        f'[personalities.{name}]\nplanner = "react"\nmodels = ["{name}"]\n' for name in models
    )


async def everything_in(dsn: str) -> str:
    """Every row of every table, as text, and bytes as text where they are."""
    db: Any = await asyncpg.connect(dsn)
    try:
        tables = await db.fetch("select schemaname, tablename from pg_tables where schemaname like 'kfm%'")
        assert tables
        rows = [await db.fetch(f'select * from "{t["schemaname"]}"."{t["tablename"]}"') for t in tables]
    finally:
        await db.close()
    values = (value for table in rows for row in table for value in row.values())
    return "\n".join(v.decode("latin-1") if isinstance(v, bytes) else str(v) for v in values)


async def test_no_secret_reaches_a_log_a_metric_an_answer_the_journal_or_a_trace(
    tmp_path: Path, database: str, model_server: ModelServer
) -> None:
    await asyncio.to_thread((tmp_path / "key").write_text, FILED)
    await asyncio.to_thread((tmp_path / "config.toml").write_text, configured(model_server.url))
    model_server.play({"reply": {"text": "Heard."}})
    said: list[str] = []
    async with collector() as taker:
        environment = {
            "KFM_TOKEN": TOKEN,
            "THE_KEY": NAMED,
            "KFM_LOG_LEVEL": "debug",
            "KFM_OTLP_ENDPOINT": taker.endpoint,
            "KFM_OTLP_HEADERS": f"authorization=Bearer {HEADER}",
        }
        server = LiveServer(tmp_path, database_url=database, environment=environment)
        try:
            await asyncio.to_thread(server.start)
            async with Client(server.grpc, token=TOKEN, timeout=20) as client:
                for name in ("filed", "literal", "named"):
                    turn = await client.turns.start(SAID, personality=name)
                    said.append(repr(await turn.result(check=False)))
                    said.append(repr(await turn.explain()))
                    said += [repr(event) async for event in turn.events()]
            async with Client(server.grpc, token=MISPLACED, timeout=20) as stranger:
                with pytest.raises(XenocommError) as refused:
                    await stranger.turns.start("hello")
                said.append(repr(refused.value) + str(refused.value))
            said += await shown_and_refused(server)
            await asyncio.to_thread(server.await_metric, 'kfm_turns_finished_total{outcome="succeeded"} 1.0')
            await taker.until(lambda c: len({s.trace_id for s in c.spans if s.name == "turn"}) == 3)
            metrics = await asyncio.to_thread(server.metrics)
            assert await asyncio.to_thread(server.stop) == 0
        finally:
            server.kill()
    log, journal = server.log_tail(100_000), await everything_in(database)
    traces = "".join(map(str, taker.spans))
    assert "Heard." in journal and SAID in journal
    assert "config_refused" in log and "step_attempted" in log and "models.literal.api_key" in "".join(said)
    places = {"log": log, "metrics": metrics, "journal": journal, "traces": traces, "answers": "".join(said)}
    found = [(place, secret) for place, text in places.items() for secret in SECRETS if secret in text]
    assert not found
    assert [place for place in ("log", "metrics", "traces") if SAID in places[place]] == []
    assert taker.metadata[0]["authorization"] == f"Bearer {HEADER}"


async def shown_and_refused(server: LiveServer) -> list[str]:
    """What GetConfig shows, before and after a configuration that has secrets where none belong."""
    found: list[str] = []
    bearer = (("authorization", f"Bearer {TOKEN}"),)
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        service = "/kfm.admin.v1.AdminService"
        show = channel.unary_unary(
            f"{service}/GetConfig",
            request_serializer=pb.GetConfigRequest.SerializeToString,
            response_deserializer=pb.GetConfigResponse.FromString,
        )
        reload = channel.unary_unary(
            f"{service}/ReloadConfig",
            request_serializer=pb.ReloadConfigRequest.SerializeToString,
            response_deserializer=pb.ReloadConfigResponse.FromString,
        )
        found.append(str(await show(pb.GetConfigRequest(), metadata=bearer, timeout=10)))
        misplaced = (
            f'api_key = "{MISPLACED}"\n[models.x]\napi_kye = "{MISPLACED}"\napi_key = "{MISPLACED} x"\n',
            f'[models.x]\nprovider = "scripted"\napi_key = "{MISPLACED} x"\n',
            f"token = {MISPLACED}\n",
        )
        for text in misplaced:
            await asyncio.to_thread((server.home / "config.toml").write_text, text)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await reload(pb.ReloadConfigRequest(), metadata=bearer, timeout=10)
            found.append(f"{refused.value.details()} {refused.value.trailing_metadata()}")
            found.append(str(await show(pb.GetConfigRequest(), metadata=bearer, timeout=10)))
    return found
