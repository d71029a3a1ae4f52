"""Traps of the wheel 0.9.0 and of the server (notes of 2026-11-20), each met by a test here or by what makes it impossible.

| trap | met by |
|---|---|
| producers make missing topics with one partition; background failures are only logged; consumers lose and swallow; automatic commits come before our work | none is used: `test_the_adapter_uses_nothing_of_the_wheel_that_loses_or_hides` |
| calls return futures, a cancelled one is carried out at any later time | `IggyConnection` cancels none: `test_a_cancelled_request_is_waited_for_by_the_next` |
| one request at a time for each connection; 30 s for each answer | a connection for each use, a deadline: `test_an_answer_that_does_not_come_...`, `test_reading_does_not_wait_for_a_publication` |
| retries without end hang; none never heal | finite ones and `connect`: `test_a_call_fails_soon_...`, tests/conformance/test_iggy.py |
| an outcome that is unknown is not sent again | the same id again: `test_an_answer_that_is_lost_...` |
| errors are texts, with empty names | one function: `test_a_text_says_...` |
| sdk keys that a server refuses (`durability` before the release) | `test_a_server_that_lacks_the_durability_options_...` |
| partitions come after their topic | `test_partitions_that_come_late_...` |
| offsets are given out again after a loss; stored ones become 0 | heads tell: `test_a_lost_tail_...`; 0 counts as nothing: tests/conformance/test_iggy.py |
| ghosts, foreign and lost partitions, empty assignments | tests/conformance/test_iggy.py |
| QUIC and WebSocket check no certificate by themselves | `test_certificates_are_checked_...`, `test_every_transport_...` |
| no way to close; a process that exits at once dies | `test_connections_are_closed_...`, `test_a_process_that_exits_...` |
| headers and payloads beyond the limits | `check` of the port: `test_a_message_that_breaks_a_limit_...` |
| routing by key depends on a cached number | partitions are always named: the stub asserts it |
"""

import ast
import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from apache_iggy import IggyClient, QuicConfig, TcpConfig, WebSocketConfig
from kfm_server.bus import iggy as adapter
from kfm_server.bus.iggy import IggyBroker, client
from kfm_server.bus.iggy.client import AlreadyThere, NotThere, classify
from kfm_server.bus.iggy.publishing import BATCH_MESSAGES, Lane, parts_of
from kfm_server.ports.broker import BrokerMisfit, BrokerUnavailable, Message, MessageRefused
from kfm_server.ports.iggy_settings import IggySettings
from kfm_server.secret import Secret

from tests.support.iggy_frames import OLD_OPTIONS
from tests.support.iggy_stub import IggyStub

pytestmark = pytest.mark.requirement("B1")
TOPIC = "agent.turns.events"
SEND, POLL, GET_TOPIC, CREATE_TOPIC = 101, 100, 300, 302


@pytest.fixture
async def stub() -> AsyncGenerator[IggyStub]:
    async with IggyStub().running() as running:
        yield running


def settings(stub: IggyStub, **changes: object) -> IggySettings:
    made: dict[str, object] = {"address": stub.address, "password": Secret("iggy"), **changes}
    return IggySettings(**made)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def opened(stub: IggyStub, **changes: object) -> AsyncGenerator[IggyBroker]:
    """Every wait within is bounded well below the 30 s that the wheel waits for an answer."""
    async with asyncio.timeout(15), IggyBroker.open(settings(stub, **changes), [TOPIC], 4) as broker:
        yield broker


def message(number: int) -> Message:
    return Message(b"event %d" % number, number)


async def ids(broker: IggyBroker) -> list[int]:
    return [m.id for m in await broker.read(TOPIC, 0, 0, 1000)]


def test_the_adapter_uses_nothing_of_the_wheel_that_loses_or_hides() -> None:
    source = "".join(p.read_text() for p in sorted(Path(adapter.__file__).parent.glob("*.py")))
    used = {
        node.attr
        for node in ast.walk(ast.parse(source.replace("from __future__", "# ")))
        if isinstance(node, ast.Attribute)
    }
    offered = {name for name in dir(IggyClient) if not name.startswith("_")}
    assert used & offered == {
        "connect", "create_consumer_group", "create_stream", "create_topic", "delete_consumer_group",
        "describe_options", "get_consumer_group", "get_stream", "get_topic", "join_consumer_group",
        "leave_consumer_group", "poll_messages", "send_binary_request", "send_messages",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind", "anew"),
    [
        ("Disconnected", BrokerUnavailable, True),
        ("Not connected", BrokerUnavailable, True),
        ("Cannot establish connection", BrokerUnavailable, True),
        ("Unauthenticated", BrokerUnavailable, True),
        ("Request transiently not committed; retry", BrokerUnavailable, False),
        ("Resource with key:  was not found.", NotThere, False),
        ("Topic with ID: 0 for stream with ID: 0 was not found.", NotThere, False),
        ("Consumer group member with client ID: 7 does not own partition: 1 at the current", NotThere, False),
        ("Stream with name:  already exists.", AlreadyThere, False),
        ("Topic with name:  for stream with ID: 0 already exists.", AlreadyThere, False),
        ("Consumer group with name:  for topic with ID: 0 already exists.", AlreadyThere, False),
        ("Too big message payload", MessageRefused, False),
        ("Empty message payload", MessageRefused, False),
        ("Invalid credentials", BrokerMisfit, True),
        ("Unauthorized", BrokerMisfit, False),
        ("Unsupported option key: ", BrokerMisfit, False),
        ("Incompatible binary protocol version: client 0.11.0", BrokerMisfit, False),
        ("what no version said before", BrokerUnavailable, True),
    ],
)
def test_a_text_says_what_to_do_by_its_beginning(text: str, kind: type[Exception], anew: bool) -> None:
    found, broken = classify(text)
    assert (type(found), str(found), broken) == (kind, text, anew)


async def test_a_cancelled_request_is_waited_for_by_the_next(stub: IggyStub) -> None:
    async with opened(stub) as broker:
        stub.hold[SEND] = asyncio.Event()
        first = asyncio.ensure_future(broker.publish(TOPIC, 0, [message(1)]))
        await stub.until(lambda: SEND in stub.asked)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.ensure_future(broker.publish(TOPIC, 0, [message(2)]))
        await broker.heads(TOPIC)
        assert stub.asked.count(SEND) == 1
        stub.hold.pop(SEND).set()
        await second
        assert await ids(broker) == [1, 2]


async def test_whoever_waits_behind_a_cancelled_publication_is_published_all_the_same(stub: IggyStub) -> None:
    async with opened(stub) as broker:
        stub.hold[SEND] = asyncio.Event()
        held = asyncio.ensure_future(broker.publish(TOPIC, 0, [message(1)]))
        await stub.until(lambda: SEND in stub.asked)
        others = [asyncio.ensure_future(broker.publish(TOPIC, 0, [message(n)])) for n in (2, 3, 4)]
        await broker.heads(TOPIC)
        held.cancel()
        others[1].cancel()
        await asyncio.wait([held, others[1]])
        stub.hold.pop(SEND).set()
        await asyncio.gather(others[0], others[2])
        assert await ids(broker) == [1, 2, 4]
        assert stub.asked.count(SEND) == 2, "those that waited go together"


async def test_an_answer_that_does_not_come_costs_the_connection_and_not_those_that_follow(
    stub: IggyStub,
) -> None:
    async with opened(stub, deadline=0.3) as broker:
        stub.hold[SEND] = asyncio.Event()
        with pytest.raises(BrokerUnavailable, match="no answer within"):
            await broker.publish(TOPIC, 0, [message(1)])
        held = stub.hold.pop(SEND)
        await broker.publish(TOPIC, 0, [message(2)])
        assert await ids(broker) == [1, 2]
        held.set()


async def test_reading_does_not_wait_for_a_publication(stub: IggyStub) -> None:
    async with opened(stub) as broker:
        await broker.publish(TOPIC, 0, [message(1)])
        stub.hold[SEND] = asyncio.Event()
        held = asyncio.ensure_future(broker.publish(TOPIC, 0, [message(2)]))
        await stub.until(lambda: stub.asked.count(SEND) == 2)
        assert (await ids(broker))[0] == 1
        assert (await broker.heads(TOPIC))[0] >= 1
        stub.hold.pop(SEND).set()
        await held


async def test_a_call_fails_soon_while_the_server_is_away_and_the_next_one_works_when_it_is_back(
    stub: IggyStub,
) -> None:
    async with opened(stub) as broker:
        await stub.kill()
        for _ in range(3):
            with pytest.raises(BrokerUnavailable):
                await broker.publish(TOPIC, 0, [message(1)])
        await stub.start()
        await broker.publish(TOPIC, 0, [message(1)])
        assert await ids(broker) == [1]


async def test_an_answer_that_is_lost_with_the_server_leaves_a_copy_under_the_same_id(stub: IggyStub) -> None:
    async with opened(stub) as broker:

        def lose(code: int) -> bool:
            return code != SEND

        stub.before_answer = lose
        lost = asyncio.ensure_future(broker.publish(TOPIC, 0, [message(1)]))
        await stub.until(lambda: SEND in stub.asked)
        await stub.kill()
        with pytest.raises(BrokerUnavailable):
            await lost
        stub.before_answer = lambda code: True
        await stub.start()
        await broker.publish(TOPIC, 0, [message(1)])
        assert await ids(broker) == [1, 1]


async def test_a_lost_tail_is_seen_by_its_head(stub: IggyStub) -> None:
    async with opened(stub) as broker:
        await broker.publish(TOPIC, 0, [message(n) for n in range(1, 6)])
        await stub.kill()
        await stub.start(lose=2)
        with contextlib.suppress(BrokerUnavailable):
            await broker.heads(TOPIC)
        assert await broker.heads(TOPIC) == {0: 3, 1: 0, 2: 0, 3: 0}
        assert await broker.read(TOPIC, 0, 5, 10) == []


async def test_a_wiped_broker_has_its_topics_again_and_empty(stub: IggyStub) -> None:
    async with opened(stub) as broker:
        async with broker.group("workers", TOPIC) as group:
            await group.join()
            await broker.publish(TOPIC, 0, [message(1)])
            stub.wipe()
            with pytest.raises(BrokerUnavailable, match="made again"):
                await broker.publish(TOPIC, 0, [message(2)])
            assert await broker.heads(TOPIC) == dict.fromkeys(range(4), 0)
            await broker.publish(TOPIC, 0, [message(2)])
            assert await group.assigned() == {}
            assert await group.assigned() == dict.fromkeys(range(4), 0)


async def test_partitions_that_come_late_are_an_outage_of_a_moment(stub: IggyStub) -> None:
    async with opened(stub) as broker:
        stub.late_sends = 1
        with pytest.raises(BrokerUnavailable):
            await broker.publish(TOPIC, 0, [message(1)])
        await broker.publish(TOPIC, 0, [message(1)])
        assert stub.asked.count(CREATE_TOPIC) == 1


async def test_durability_is_asked_for_by_the_servers_own_options(stub: IggyStub) -> None:
    async with opened(stub, retention=3600.0, max_partition_bytes=10**9):
        topic = stub.store.topic("kfm-dev", TOPIC)
        assert topic is not None
        assert topic.options["durability"] == topic.options["consumer_offset_durability"] == "persisted"
        assert topic.options["message_expiry"] == "3600000000"
        assert topic.options["max_topic_size"] == "1000000000"


async def test_a_server_that_lacks_the_durability_options_is_told_to_sync_every_message() -> None:
    async with IggyStub(OLD_OPTIONS).running() as stub, opened(stub, retention=3600.0):
        topic = stub.store.topic("kfm-dev", TOPIC)
        assert topic is not None
        assert topic.options == {
            "message_expiry": "3600s",
            "max_topic_size": "unlimited",
            "enforce_fsync": "true",
            "messages_required_to_save": "1",
        }


async def test_a_server_that_offers_no_durability_is_refused() -> None:
    async with IggyStub(()).running() as stub:
        with pytest.raises(BrokerMisfit, match="knows no option enforce_fsync"):
            async with opened(stub):
                pass


async def test_a_token_opens_instead_of_a_password(stub: IggyStub) -> None:
    stub.token = "iggypat-0123456789"
    async with opened(stub, password=Secret(), token=Secret(stub.token)) as broker:
        assert await broker.heads(TOPIC)
    with pytest.raises(BrokerMisfit, match="Invalid credentials"):
        async with opened(stub, password=Secret(), token=Secret("another")):
            pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """For `localhost`, signed by itself; and its key."""
    home = tmp_path_factory.mktemp("tls")
    made, key = home / "cert.pem", home / "key.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout {key} -out {made} -subj /CN=localhost"
    )
    command += " -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    subprocess.run(command.split(), check=True, capture_output=True, timeout=60)
    return made, key


@pytest.mark.parametrize(
    ("domain", "known", "works"),
    [("localhost", True, True), ("localhost", False, False), ("other", True, False)],
)
async def test_certificates_are_checked_for_who_signed_them_and_for_whom(
    certificate: tuple[Path, Path], domain: str, known: bool, works: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with IggyStub(tls=context).running() as stub:
        trusted = str(certificate[0]) if known else ""
        async with opened(stub, tls=True, tls_domain=domain, tls_ca_file=trusted) as broker:
            if works:
                await broker.publish(TOPIC, 0, [message(1)])
                assert await ids(broker) == [1]
            else:
                with pytest.raises((BrokerUnavailable, BrokerMisfit)):
                    await broker.heads(TOPIC)


def test_every_transport_checks_certificates_and_retries_finitely(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[TcpConfig | QuicConfig | WebSocketConfig] = []
    monkeypatch.setattr(client, "IggyClient", made.append)
    for transport in ("tcp", "quic", "websocket"):
        client.client_of(IggySettings(address="127.0.0.1:8090", transport=transport, tls=True))
    tcp, quic, websocket = made
    assert isinstance(tcp, TcpConfig) and tcp.tls_enabled and tcp.tls_validate_certificate
    assert isinstance(quic, QuicConfig) and quic.validate_certificate
    assert (
        isinstance(websocket, WebSocketConfig)
        and websocket.tls_enabled
        and websocket.tls_validate_certificate
    )
    with pytest.raises(BrokerMisfit, match="SSL_CERT_FILE"):
        client.client_of(IggySettings(address="127.0.0.1:8090", transport="quic", tls_ca_file="ca.pem"))
    for config in made:
        assert config.reconnection.enabled and config.reconnection.max_retries is not None
        assert config.heartbeat_interval.total_seconds() == 1


async def test_connections_are_closed_when_the_broker_is(stub: IggyStub) -> None:
    async with opened(stub) as broker, broker.group("workers", TOPIC) as group:
        await group.join()
        await broker.publish(TOPIC, 0, [message(1)])
        await ids(broker)
        assert len(stub.connections) == 4
    await stub.until(lambda: not stub.connections)
    assert [g.members for g in stub.store.groups()] == [{}]


async def test_a_process_that_exits_right_after_use_exits_cleanly(stub: IggyStub) -> None:
    program = (
        "import asyncio, sys\n"
        "from kfm_server.bus.iggy import IggyBroker\n"
        "from kfm_server.ports.broker import Message\n"
        "from kfm_server.ports.iggy_settings import IggySettings\n"
        "from kfm_server.secret import Secret\n"
        "async def main():\n"
        "    settings = IggySettings(address=sys.argv[1], password=Secret('iggy'))\n"
        "    async with IggyBroker.open(settings, ['t'], 1) as broker:\n"
        "        await broker.publish('t', 0, [Message(b'x', 1)])\n"
        "asyncio.run(main())\n"
    )
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stub.address)
        assert await asyncio.wait_for(process.wait(), 60) == 0


@pytest.mark.parametrize(
    "broken",
    [
        Message(b"", 1),
        Message(bytes(60_000_001), 1),
        Message(b"x", 0),
        Message(b"x", 2**128),
        Message(b"x", 1, {"": "v"}),
        Message(b"x", 1, {"n": ""}),
        Message(b"x", 1, {"n": "ä" * 128}),
        Message(b"x", 1, {f"{n:0250}": "v" * 255 for n in range(200)}),
    ],
    ids=["empty", "large", "no-id", "long-id", "no-name", "no-value", "long-value", "headers"],
)
async def test_a_message_that_breaks_a_limit_is_refused_and_none_of_its_batch_is_published(
    stub: IggyStub, broken: Message
) -> None:
    async with opened(stub) as broker:
        with pytest.raises(MessageRefused, match=r"taken|of 1 to"):
            await broker.publish(TOPIC, 0, [message(1), broken])
        assert await ids(broker) == []


async def test_a_topic_or_partition_that_was_not_asked_for_is_a_mistake(stub: IggyStub) -> None:
    async with opened(stub) as broker:
        for topic, partition in (("no.such", 0), (TOPIC, 4), (TOPIC, -1)):
            with pytest.raises(BrokerMisfit, match="is none of 4 partitions"):
                await broker.publish(topic, partition, [message(1)])


def test_a_publication_is_parted_by_count_and_bytes() -> None:
    many = [message(n) for n in range(1, 2 * BATCH_MESSAGES + 2)]
    assert [len(part) for part in parts_of(many)] == [BATCH_MESSAGES, BATCH_MESSAGES, 1]
    large = [Message(bytes(size), 1) for size in (600_000, 600_000, 5_000_000, 100)]
    assert [[len(m.payload) for m in part] for part in parts_of(large)] == [
        [600_000],
        [600_000],
        [5_000_000],
        [100],
    ]
    assert parts_of([]) == []


async def test_who_breaks_a_rule_of_the_server_is_told_and_not_those_beside() -> None:
    sent: list[int] = []
    entered, go = asyncio.Event(), asyncio.Event()

    async def send(messages: object) -> None:
        assert isinstance(messages, list)
        entered.set()
        await go.wait()
        numbers = [m.id for m in messages]
        if 3 in numbers:
            raise MessageRefused("three")
        sent.extend(numbers)

    lane = Lane(send)
    tasks = [asyncio.ensure_future(lane.publish([message(1)]))]
    await asyncio.wait_for(entered.wait(), 10)
    tasks += [asyncio.ensure_future(lane.publish([message(n)])) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    go.set()
    told = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [type(t) for t in told] == [type(None), type(None), MessageRefused, type(None)]
    assert sent == [1, 2, 4]
