"""Fetches text over HTTP from hosts that the operator allowed; everything about it is bounded, and bounds are named."""

import asyncio
import codecs
import ipaddress
import socket
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from kfm.type.v1 import type_pb2 as types
from yarl import URL

from kfm_server.ports.tools import Tool, ToolCall, ToolError, ToolSpec
from kfm_server.tools.outbound import MAX_URL, Outbound, parse_url

MAX_BYTES: Final = 1024 * 1024
"""Largest body, as it comes and as it is once unpacked."""
MAX_REDIRECTS: Final = 5
TIMEOUT_SECONDS: Final = 20.0
"""Longest fetch: lookups, redirects and body together."""
_CHUNK = 64 * 1024
_TEXT = frozenset(
    {"json", "xml", "javascript", "ecmascript", "yaml", "x-yaml", "toml", "x-ndjson", "ndjson", "graphql"}
)
_CHARSETS = frozenset(
    {"utf-8", "utf-8-sig", "ascii", "utf-16", "utf-16-le", "utf-16-be", "big5", "euc_jp", "euc_kr", "gb18030", "gbk"}
    | {"gb2312", "koi8-r", "koi8-u", "shift_jis"}
    | {f"iso8859-{n}" for n in range(1, 17)}
    | {f"cp125{n}" for n in range(9)}
)  # fmt: skip
_TOLD_HEADERS = ("content-language", "date", "etag", "expires", "last-modified", "retry-after")
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class HttpFetch:
    """GET and HEAD, which mean the same however often they are sent: IDEMPOTENT.

    Sends no cookie, no credential and no header of the caller's; follows redirects by hand, each checked like the
    first URL; connects only to addresses that were checked, so that a name cannot change its meaning in between.
    """

    def __init__(
        self,
        allow: Iterable[str],
        *,
        max_bytes: int = MAX_BYTES,
        timeout_seconds: float = TIMEOUT_SECONDS,
        allow_loopback: bool = False,
    ) -> None:
        """`allow` and `allow_loopback` as Outbound has them. Raises PatternInvalid."""
        self._outbound = Outbound(allow, allow_loopback=allow_loopback)
        self._max_bytes = max_bytes
        self._timeout = timeout_seconds
        self.spec = ToolSpec(
            name="http_fetch",
            description="Fetches a web page or another text by its http or https URL.",
            input_schema={
                "type": "object",
                "properties": {
                    "url": {"type": "string", "minLength": 1, "maxLength": MAX_URL},
                    "method": {"enum": ["GET", "HEAD"], "default": "GET"},
                },
                "required": ["url"],
                "additionalProperties": False,
            },
            effect=types.EFFECT_CONTRACT_IDEMPOTENT,
        )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Fetch; answers status, headers worth knowing and the text. Raises ToolError."""
        url, method = parse_url(arguments["url"]), arguments.get("method", "GET")
        try:
            async with asyncio.timeout(self._timeout):
                return await self._fetch(url, method)
        except TimeoutError:
            raise ToolError(
                f"The fetch took longer than timeout_seconds={self._timeout:g}.", retryable=True
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ToolError(
                f"{url.host}: the fetch failed: {type(error).__name__}.", retryable=True
            ) from None

    async def _fetch(self, url: URL, method: str) -> Any:
        for _ in range(MAX_REDIRECTS + 1):
            self._outbound.check(url)
            addresses = await self._outbound.resolve(url)
            async with self._session(addresses) as session:
                async with session.request(method, url, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS or "Location" not in response.headers:
                        return await self._answer(url, method, response)
                    target = _joined(url, response.headers["Location"])
            if url.scheme == "https" and target.scheme == "http":
                raise ToolError(f"{url.host} redirects from https to http: this is not followed.")
            url = target
        raise ToolError(f"There were more redirects than max_redirects={MAX_REDIRECTS}.")

    def _session(self, addresses: Sequence[tuple[socket.AddressFamily, str]]) -> aiohttp.ClientSession:
        """For one request: nothing of it is left to the next."""
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(addresses), use_dns_cache=False, force_close=True, socket_factory=self._socket
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),  # of the whole: in `call`
            headers={"User-Agent": "kfm-http-fetch", "Accept": "*/*", "Accept-Encoding": "gzip"},
        )

    def _socket(self, address: Any) -> socket.socket:
        """The last guard: a socket to an address that was not checked is not made."""
        family, kind, protocol, _, sockaddr = address
        try:
            self._outbound.check_address(ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]))
        except ToolError as error:
            raise OSError(str(error)) from None
        return socket.socket(family, kind, protocol)

    async def _answer(self, url: URL, method: str, response: aiohttp.ClientResponse) -> Any:
        status, headers = response.status, response.headers
        if status in _TRY_AGAIN:
            raise ToolError(f"{url.host} answered with status {status}.", retryable=True)
        answer: dict[str, Any] = {"url": str(url), "status": status}
        answer["headers"] = {name: headers[name][:500] for name in _TOLD_HEADERS if name in headers}
        if method == "HEAD" or status in (204, 304):
            return answer | {"content_type": headers.get("Content-Type", "")[:200]}
        kind, charset = _text_type(headers.get("Content-Type", ""))
        body = await self._body(response)
        return answer | {
            "content_type": kind,
            "charset": charset,
            "bytes": len(body),
            "text": body.decode(charset, "replace"),
        }

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise ToolError(f"The content encoding {encoding[:40]!r} is not read; identity and gzip are.")
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding.endswith("gzip") else None
        body, came = bytearray(), 0
        async for chunk in response.content.iter_chunked(_CHUNK):
            came += len(chunk)
            if unpack is None:
                body += chunk
            else:
                try:
                    body += unpack.decompress(chunk, self._max_bytes + 1 - len(body))
                except zlib.error:
                    raise ToolError("The body is not the gzip that it says it is.") from None
                if unpack.unused_data:
                    raise ToolError("Something follows the body's gzip: it is not read.")
            if max(came, len(body)) > self._max_bytes:
                raise ToolError(f"The body is larger than max_bytes={self._max_bytes}.")
        if unpack is not None and came and not unpack.eof:
            raise ToolError("The body ended before its gzip did.", retryable=True)
        return bytes(body)


def http_fetch_tools(allow: Iterable[str]) -> list[Tool]:
    """The tool, if any host is allowed; else none. Raises PatternInvalid for a pattern that is none."""
    patterns = tuple(allow)
    return [HttpFetch(patterns)] if patterns else []


class _Pinned(AbstractResolver):
    """Answers with what was resolved and checked, whatever the name means by now."""

    def __init__(self, addresses: Sequence[tuple[socket.AddressFamily, str]]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The pinned addresses."""
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
            )
            for kind, address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _joined(url: URL, location: str) -> URL:
    target = parse_url(location)
    try:
        return url.join(target).with_fragment(None)
    except ValueError:
        raise ToolError("It redirects to what is not a URL.") from None


def _text_type(content_type: str) -> tuple[str, str]:
    """Media type and charset of a text. Raises ToolError for what is none."""
    kind, *parameters = (part.strip() for part in content_type.lower().split(";"))
    main, _, sub = kind.partition("/")
    if not (main == "text" or (main == "application" and (sub in _TEXT or sub.endswith(("+json", "+xml"))))):
        raise ToolError(f"Only text is fetched, not {kind[:80] or 'a body without a content type'}.")
    named = next((p.partition("=")[2].strip("\"' ") for p in parameters if p.startswith("charset=")), "utf-8")
    try:
        charset = codecs.lookup(named).name
    except (LookupError, ValueError):
        charset = ""
    if charset not in _CHARSETS:
        raise ToolError(f"The charset {named[:40]!r} is not read.")
    return kind, charset
