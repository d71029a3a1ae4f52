"""Fetching over HTTP, against local servers that mean no good."""

import asyncio
import gzip
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import ToolCall, ToolError
from kfm_server.tools.http_fetch import MAX_BYTES, MAX_REDIRECTS, HttpFetch, http_fetch_tools
from kfm_server.tools.outbound import PatternInvalid
from kfm_server.tools.registry import ToolRegistry

pytestmark = pytest.mark.requirement("T1", "ST10")
CALL = ToolCall("key", 1, 1, "default", "ann", lambda _: None)
Handler = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
TEXT = OK + b"Content-Type: text/plain\r\n\r\n"


class Site:
    """A server that answers as it is told, by path, and notes what it was sent."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Handler] = {}
        self.requests: list[str] = []
        self.port = 0

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            answer = self.answers.get(head.split()[1], TEXT + b"hello")
            if isinstance(answer, bytes):
                writer.write(
                    answer if head.startswith("GET") else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
                )
                await writer.drain()
            else:
                await answer(head, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def open(self, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator["Site"]:
        server = await asyncio.start_server(self.serve, host, port)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    async with Site().open() as site:
        yield site


def local(site: Site, **options: Any) -> HttpFetch:
    """A tool that may reach the site, as only a test may."""
    allow = [f"127.0.0.1:{site.port}", f"*.test:{site.port}"]
    return HttpFetch(allow, allow_loopback=True, **options)


async def refusal(tool: HttpFetch, url: str, **arguments: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        async with asyncio.timeout(10):
            await tool.call({"url": url, **arguments}, CALL)
    return caught.value


async def test_a_text_is_answered_with_what_is_worth_knowing_and_nothing_else(site: Site) -> None:
    site.answers["/p?a=1"] = (
        OK + b"Content-Type: text/html; charset=iso-8859-1\r\nETag: x\r\nSet-Cookie: a=b\r\n"
        b"X-Secret: s\r\nContent-Length: 6\r\n\r\ncaf\xe9 1"
    )
    found = await local(site).call({"url": site.url("/p?a=1#part")}, CALL)
    assert found == {
        "url": site.url("/p?a=1"),
        "status": 200,
        "headers": {"etag": "x"},
        "content_type": "text/html",
        "charset": "iso8859-1",
        "bytes": 6,
        "text": "café 1",
    }
    sent = {line.split(":")[0].lower() for line in site.requests[0].splitlines()[1:] if line}
    assert sent == {"host", "user-agent", "accept", "accept-encoding", "connection"}


async def test_a_head_has_no_text_and_a_404_is_an_answer(site: Site) -> None:
    site.answers["/gone"] = b"HTTP/1.1 404 No\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\nno"
    found = await local(site).call({"url": site.url("/gone"), "method": "HEAD"}, CALL)
    assert (found["status"], "text" in found) == (404, False)
    found = await local(site).call({"url": site.url("/gone")}, CALL)
    assert (found["status"], found["text"]) == (404, "no")
    assert [r.split()[0] for r in site.requests] == ["HEAD", "GET"]


async def test_a_server_in_trouble_may_be_asked_again(site: Site) -> None:
    site.answers["/"] = b"HTTP/1.1 503 No\r\nConnection: close\r\n\r\n"
    assert (await refusal(local(site), site.url())).retryable
    closed = HttpFetch(["127.0.0.1:1"], allow_loopback=True)
    assert (await refusal(closed, "http://127.0.0.1:1/")).retryable


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("169.254.169.254", "168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
        *("198.18.0.1", "192.88.99.1", "100.100.100.200", "[::1]", "[::]", "[fe80::1]", "[fc00::1]"),
        *("[fd00:ec2::254]", "[ff02::1]", "[::ffff:127.0.0.1]", "[::ffff:8.8.8.8]", "[::127.0.0.1]"),
        *("[64:ff9b::7f00:1]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001::1]", "[2001:db8::1]"),
        *("[fec0::1]", "[5f00::1]", "[3fff::1]", "[fe80::1%25lo]"),
    ],
)
async def test_addresses_that_are_not_public_are_refused_whatever_is_allowed(host: str) -> None:
    error = await refusal(HttpFetch(["*"]), f"http://{host}/")
    assert "not a public address" in str(error)
    assert not error.retryable


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.1", "127.0.0.1.", "1.2.3.0x4", "08"),
        *(
            "\uff11\uff12\uff17.0.0.1",
            "127\u30020\u30020\u30021",
            "%31%32%37.0.0.1",
            "localhost",
            "localhost.",
            "LOCALHOST",
        ),
    ],
)
async def test_no_other_writing_of_such_an_address_helps(host: str, site: Site) -> None:
    tool = HttpFetch(["*", f"*:{site.port}"])
    await refusal(tool, f"http://{host}:{site.port}/")
    assert not site.requests


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "http and https"),
        ("unix:///run/x.sock", "http and https"),
        ("gopher://example.com/", "http and https"),
        ("//example.com/", "http and https"),
        ("example.com", "http and https"),
        ("http://user@example.com/", "user or a password"),
        ("http://user:pw@example.com/", "user or a password"),
        ("http:///x", "not a URL|names no host"),
        ("http://example.com:8080/", "port 8080.*http_fetch_allow"),
        ("https://example.com:80/", "port 80.*http_fetch_allow"),
        ("http://example.com:0/", "port 0"),
        ("http://example.com:99999/", "not a URL"),
        ("http://other.com/", "http_fetch_allow"),
        ("http://example.com.evil.org/", "http_fetch_allow"),
        ("http://evilexample.com/", "http_fetch_allow"),
        ("http://below.com/", "http_fetch_allow"),
        ("http://evil.com\\@example.com/", "backslash"),
        ("http://exa mple.com/", "space"),
        ("http://example.com/\r\nHost: x", "control character"),
        ("http://[::1", "not a URL"),
        ("http://example.com/" + "x" * 2048, "max_url=2048"),
    ],
)
async def test_a_url_that_is_not_allowed_is_refused_and_told_why(url: str, says: str) -> None:
    tool = HttpFetch(["example.com", "*.below.com"])
    with pytest.raises(ToolError, match=says) as caught:
        await tool.call({"url": url}, CALL)
    assert not caught.value.retryable


@pytest.mark.parametrize("pattern", ["", "http://a", "a/b", "*.", "a:0", "a:99999", "a b", "*a", "user@a"])
def test_a_pattern_that_is_none_is_refused_at_the_start(pattern: str) -> None:
    with pytest.raises(PatternInvalid):
        HttpFetch([pattern])


def test_nothing_allowed_means_that_the_tool_is_not_offered() -> None:
    assert http_fetch_tools([]) == []
    (tool,) = http_fetch_tools(["example.com"])
    assert ToolRegistry([tool]).catalogue["http_fetch"].effect == types.EFFECT_CONTRACT_IDEMPOTENT


async def test_a_name_is_resolved_once_and_what_was_checked_is_what_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, bad = Site(), Site()
    bad.answers["/"] = TEXT + b"rebound"
    async with good.open("127.0.0.1") as good, bad.open("127.0.0.2", good.port):
        lookups = _resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
        found = await local(good).call({"url": good.url(host="rebind.test")}, CALL)
        assert (found["text"], lookups) == ("hello", ["rebind.test"])


@pytest.mark.parametrize(
    "answer", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["fe80::1%lo"], ["::ffff:10.0.0.1"]]
)
async def test_a_name_with_one_address_that_is_not_public_is_refused(
    answer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolving(monkeypatch, answer)
    assert "not a public address" in str(await refusal(HttpFetch(["*"]), "http://mixed.test/"))


def _resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names mean these addresses, one answer a lookup; answers the names that were looked up."""
    lookups: list[str] = []
    left = list(answers)

    def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        lookups.append(host)
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))
            for a in left.pop(0)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lookups


def _to(location: str) -> bytes:
    return b"HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: " + location.encode() + b"\r\n\r\n"


async def test_redirects_are_followed_to_their_bound(site: Site) -> None:
    for n in range(MAX_REDIRECTS):
        site.answers[f"/{n}"] = _to(f"/{n + 1}")
    found = await local(site).call({"url": site.url("/0")}, CALL)
    assert (found["url"], found["text"]) == (site.url("/5"), "hello")
    site.answers[f"/{MAX_REDIRECTS}"] = _to("/0")
    assert f"max_redirects={MAX_REDIRECTS}" in str(await refusal(local(site), site.url("/0")))


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://169.254.169.254/latest/meta-data/", "not a public address"),
        ("http://[::ffff:10.0.0.1]/", "not a public address"),
        ("//10.0.0.1/", "not a public address"),
        ("http://2130706433/", "not accepted"),
        ("file:///etc/passwd", "http and https"),
        ("http://u:p@127.0.0.1/", "user or a password"),
        ("http://elsewhere.example/", "http_fetch_allow"),
        ("http://127.0.0.1:1/", "http_fetch_allow"),
        ("http://[", "not a URL"),
    ],
)
async def test_every_redirect_is_held_against_the_same_rules(location: str, says: str, site: Site) -> None:
    site.answers["/"] = _to(location)
    assert says in str(await refusal(local(site), site.url()))
    assert len(site.requests) == 1


async def test_a_body_is_bounded_as_it_comes_and_as_it_is_unpacked(site: Site) -> None:
    sent = 0

    async def endless(_: str, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(TEXT)
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    site.answers["/endless"] = endless
    site.answers["/fits"] = TEXT + b"x" * MAX_BYTES
    site.answers["/over"] = TEXT + b"x" * (MAX_BYTES + 1)
    site.answers["/claims"] = (
        OK + b"Content-Type: text/plain\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 2**21
    )
    assert (await local(site).call({"url": site.url("/fits")}, CALL))["bytes"] == MAX_BYTES
    for path in ("/endless", "/over", "/claims"):
        assert f"max_bytes={MAX_BYTES}" in str(await refusal(local(site), site.url(path)))
    assert sent < 20 * MAX_BYTES


async def test_a_bomb_is_refused_before_it_is_unpacked(site: Site) -> None:
    head = OK + b"Content-Type: text/plain\r\nContent-Encoding: gzip\r\n\r\n"
    site.answers["/bomb"] = head + gzip.compress(b"\0" * 200_000_000, 9)
    site.answers["/well"] = head + gzip.compress(b"well")
    site.answers["/cut"] = head + gzip.compress(b"well" * 100)[:-9]
    site.answers["/bad"] = head + b"\x1f\x8b" + b"x" * 100
    site.answers["/twice"] = head + gzip.compress(b"a") + gzip.compress(b"b")
    site.answers["/br"] = head.replace(b"gzip", b"br") + b"x"
    site.answers["/many"] = head.replace(b"gzip", b"gzip, gzip") + b"x"
    tool = local(site)
    assert (await tool.call({"url": site.url("/well")}, CALL))["text"] == "well"
    for path, says in {
        "/bomb": "max_bytes",
        "/cut": "before its gzip did",
        "/bad": "not the gzip",
        "/twice": "follows",
        "/br": "'br'",
        "/many": "'gzip, gzip'",
    }.items():
        assert says in str(await refusal(tool, site.url(path))), path


async def test_a_fetch_is_bounded_in_time_wherever_it_hangs(site: Site) -> None:
    async def silent(_: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def drip(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(TEXT)
        await writer.drain()
        await asyncio.Event().wait()

    site.answers |= {"/silent": silent, "/drip": drip}
    for path in ("/silent", "/drip"):
        error = await refusal(local(site, timeout_seconds=0.2), site.url(path))
        assert "timeout_seconds=0.2" in str(error)
        assert error.retryable


async def test_endless_headers_are_cut(site: Site) -> None:
    async def headers(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Fill: " + b"x" * 4000 + b"\r\n")
            await writer.drain()

    site.answers["/"] = headers
    site.answers["/long"] = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n"
    assert "the fetch failed" in str(await refusal(local(site), site.url()))
    assert "the fetch failed" in str(await refusal(local(site), site.url("/long")))


@pytest.mark.parametrize(
    ("content_type", "says"),
    [
        ("image/png", "not image/png"),
        ("application/octet-stream", "not application/octet-stream"),
        ("", "without a content type"),
        ("text/plain; charset=zip", "'zip'"),
        ("text/plain; charset=unicode_escape", "'unicode_escape'"),
        ("text/plain; charset=utf-7", "'utf-7'"),
        ("text/plain; charset=idna", "'idna'"),
        ("text/plain; charset=none", "'none'"),
    ],
)
async def test_what_is_not_text_is_refused(content_type: str, says: str, site: Site) -> None:
    site.answers["/"] = OK + f"Content-Type: {content_type}\r\n\r\nx".encode()
    assert says in str(await refusal(local(site), site.url()))


@pytest.mark.parametrize("kind", ["application/json", "application/ld+json", "image/svg+xml", "text/csv"])
async def test_what_is_text_is_read(kind: str, site: Site) -> None:
    site.answers["/"] = OK + f'Content-Type: {kind}; charset="UTF-8"\r\n\r\n{{}}\xff'.encode("latin-1")
    if kind.startswith("image"):
        assert "Only text" in str(await refusal(local(site), site.url()))
    else:
        assert (await local(site).call({"url": site.url()}, CALL))["text"] == "{}�"


async def test_a_fetch_that_is_cancelled_leaves_no_connection(site: Site) -> None:
    began, gone = asyncio.Event(), asyncio.Event()

    async def silent(_: str, writer: asyncio.StreamWriter) -> None:
        began.set()
        try:
            while True:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            gone.set()

    site.answers["/"] = silent
    task = asyncio.create_task(local(site).call({"url": site.url()}, CALL))
    async with asyncio.timeout(10):
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()
