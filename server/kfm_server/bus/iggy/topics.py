"""The stream and its topics: made when they are missing, checked when they are there."""

import asyncio
import contextlib
from collections.abc import Collection
from datetime import timedelta

import structlog
from apache_iggy import Durability, IggyClient, IggyExpiry, MaxTopicSize, TopicDetails

from kfm_server.bus.iggy import wire
from kfm_server.bus.iggy.client import AlreadyThere, IggyConnection
from kfm_server.ports.broker import BrokerMisfit, BrokerUnavailable
from kfm_server.ports.iggy_settings import IggySettings

MOST_PARTITIONS = 1000
"""That the server makes with one command."""
_WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between looks at a new topic, whose partitions come after the answer to its creation."""
log = structlog.get_logger(__name__)


async def make_topics(
    connection: IggyConnection, settings: IggySettings, topics: Collection[str], partitions: int
) -> None:
    """Have every topic there with so many partitions that answer. Several processes may do it at one time.

    A topic that is there keeps its retention and durability; less of the latter is logged. Never kill a server
    while topics are made: some versions then refuse to start. Raises BrokerUnavailable, and BrokerMisfit for a
    topic with another number of partitions.
    """
    if partitions > MOST_PARTITIONS:
        raise BrokerMisfit(f"{partitions} partitions: Iggy makes at most {MOST_PARTITIONS}")
    stream = settings.stream
    if await connection.call(lambda c: c.get_stream(stream)) is None:
        with contextlib.suppress(AlreadyThere):
            await connection.call(lambda c: c.create_stream(stream))
    missing = [name for name in topics if await get_topic(connection, stream, name) is None]
    if missing:
        specs = await connection.call(lambda c: c.describe_options("topic"))
        offered = {spec.key for spec in specs}
        for name in missing:
            with contextlib.suppress(AlreadyThere):
                await _make(connection, settings, name, partitions, offered)
    for name in topics:
        await _answers(connection, settings, name, partitions)


async def get_topic(connection: IggyConnection, stream: str, topic: str) -> TopicDetails | None:
    """None if it is not there. Raises BrokerUnavailable."""
    return await connection.call(lambda c: c.get_topic(stream, topic))


async def _make(
    connection: IggyConnection, settings: IggySettings, name: str, partitions: int, offered: Collection[str]
) -> None:
    stream = settings.stream
    if {"durability", "consumer_offset_durability"} <= set(offered):
        durability = Durability.PERSISTED if settings.durable else Durability.REPLICATED
        kept = IggyExpiry.NeverExpire()
        if settings.retention:
            kept = IggyExpiry.ExpireDuration(timedelta(seconds=settings.retention))
        size = MaxTopicSize.Unlimited()
        if settings.max_partition_bytes:
            size = MaxTopicSize.Custom(settings.max_partition_bytes)

        def create(client: IggyClient):
            return client.create_topic(
                stream,
                name,
                partitions,
                message_expiry=kept,
                max_topic_size=size,
                durability=durability,
                consumer_offset_durability=durability,
            )

        await connection.call(create)
        return
    # The wheel always sends the keys above, which servers before the release of 0.9.0 refuse. fsync alone loses
    # what waits for a batch, so both are asked for.
    options = {
        "message_expiry": f"{settings.retention:.0f}s" if settings.retention else "never",
        "max_topic_size": f"{settings.max_partition_bytes} B"
        if settings.max_partition_bytes
        else "unlimited",
    }
    if settings.durable:
        options |= {"enforce_fsync": "true", "messages_required_to_save": "1"}
    unknown = sorted(set(options) - set(offered))
    if unknown:
        raise BrokerMisfit(f"topic {name}: the server knows no option {', '.join(unknown)}")
    payload = wire.create_topic(stream, name, partitions, options)
    await connection.command(wire.CREATE_TOPIC, payload, bytes)


async def _answers(connection: IggyConnection, settings: IggySettings, name: str, partitions: int) -> None:
    """Wait until every partition is there."""
    found: TopicDetails | None = None
    for wait in (0.0, *_WAITS):
        await asyncio.sleep(wait)
        found = await get_topic(connection, settings.stream, name)
        if found is None or len(found.partitions) < found.partitions_count:
            continue
        if found.partitions_count != partitions:
            raise BrokerMisfit(
                f"topic {name} of stream {settings.stream} has {found.partitions_count} partitions, and the"
                f" journal has {partitions}: give iggy.stream another name, or delete the topic"
            )
        if settings.durable:
            _tell_weak(settings.stream, name, found)
        return
    raise BrokerUnavailable(f"topic {name} of stream {settings.stream}: its partitions do not come")


def _tell_weak(stream: str, name: str, topic: TopicDetails) -> None:
    """Log what of the options of a topic lets a crash of the server lose messages."""
    options = {str(k): str(v) for k, v in topic.options.to_scalar_dict().items()}
    strong = options.get("durability") == "persisted" or (
        options.get("enforce_fsync", "").lower() == "true" and options.get("messages_required_to_save") == "1"
    )
    if not strong:
        log.warning(
            "iggy_topic_not_durable", stream=stream, topic=name, risk="a crash of it may lose the tail"
        )
