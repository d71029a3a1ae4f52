"""The HTTP door: liveness, readiness, metrics, nothing else."""

import asyncio

import pytest
from kfm_server.doors.binding import BindRefused
from kfm_server.doors.http.app import HttpDoor

pytestmark = pytest.mark.requirement("E2")


async def fetch(address: str, path: str, *headers: str) -> tuple[int, str]:
    """Status and body of a GET."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    raw = (await reader.read()).decode()
    writer.close()
    head, _, body = raw.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def test_readiness_follows_the_parts_and_liveness_does_not() -> None:
    parts = {"": True, "journal": True}
    door = HttpDoor(address="127.0.0.1:0", parts=lambda: parts)
    address = await door.start()
    assert (await fetch(address, "/health/live"))[0] == 200
    assert (await fetch(address, "/health/ready"))[0] == 200
    parts |= {"": False, "journal": False}
    status, body = await fetch(address, "/health/ready")
    assert status == 503
    assert '"journal":false' in body
    assert (await fetch(address, "/health/live"))[0] == 200
    assert (await fetch(address, "/v1/turns"))[0] == 404
    async with asyncio.timeout(30):
        await door.stop()


async def test_metrics_ask_for_the_token() -> None:
    door = HttpDoor(address="127.0.0.1:0", parts=lambda: {"": True}, token="s3cret")
    address = await door.start()
    assert (await fetch(address, "/metrics"))[0] == 401
    assert (await fetch(address, "/metrics", "Authorization: Bearer nope"))[0] == 401
    status, body = await fetch(address, "/metrics", "Authorization: Bearer s3cret")
    assert status == 200
    assert "python_info" in body
    await door.stop()


async def test_a_taken_port_and_an_open_bind_are_refused() -> None:
    door = HttpDoor(address="127.0.0.1:0", parts=dict)
    address = await door.start()
    with pytest.raises(OSError, match="in use"):
        await HttpDoor(address=address, parts=dict).start()
    await door.stop()
    with pytest.raises(BindRefused):
        HttpDoor(address="0.0.0.0:0", parts=dict)
