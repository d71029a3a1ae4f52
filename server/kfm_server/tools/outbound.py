"""Where tools may connect to: hosts that the operator named, at public addresses that were checked before the connection."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from yarl import URL

from kfm_server.ports.tools import ToolError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL = 2048
"""Longest URL, in characters."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PATTERN = re.compile(
    r"(?P<host>\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
)
_NUMERIC = re.compile(r"([0-9]+|0x[0-9a-f]*)")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")

# What Python's is_global lets through although nobody on the internet has it, or although it stands for another address.
_NEVER4 = tuple(
    map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "224.0.0.0/3"))
)
_UNICAST6 = ipaddress.IPv6Network("2000::/3")
_NEVER6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
# A lookup cannot be cancelled; those that hang take no thread of anybody else.
_lookups = ThreadPoolExecutor(4, thread_name_prefix="tool-lookup")


class PatternInvalid(ValueError):
    """What should be a pattern of hosts is none."""


@dataclass(frozen=True, slots=True)
class _Rule:
    host: str
    """A host; `.example.com` for all below it; empty for any."""
    port: int | None

    def fits(self, host: str, port: int, default: int) -> bool:
        if port != (self.port or default):
            return False
        return not self.host or host == self.host or (self.host[0] == "." and host.endswith(self.host))


class Outbound:
    """Which URLs may be fetched, and from which addresses.

    `allow`: `example.com`, `*.example.com` (all below it, not itself), `*` (any), each with `:port` for another port than
    80 for http and 443 for https. Addresses that are not public are refused whatever is allowed, unless `allow_loopback`,
    which is for tests, lets those of loopback pass. Raises PatternInvalid for a pattern that is none.
    """

    def __init__(self, allow: Iterable[str], *, allow_loopback: bool = False) -> None:
        self._rules = [_rule(pattern) for pattern in allow]
        self._allow_loopback = allow_loopback

    def check(self, url: URL) -> None:
        """Hold a URL, the one that is going to be used, against the rules. Raises ToolError."""
        if url.scheme not in _DEFAULT_PORTS:
            raise ToolError(
                f"Only http and https URLs are fetched, not {url.scheme[:20] or 'one without a scheme'}."
            )
        if url.raw_user is not None or url.raw_password is not None:
            raise ToolError("A URL with a user or a password is not fetched.")
        host, port = (url.raw_host or "").rstrip("."), url.port
        if not host or port is None:
            raise ToolError("The URL names no host.")
        literal = _literal(host)
        if literal is not None:
            self.check_address(literal)
        elif _NUMERIC.fullmatch(host.rpartition(".")[2]):
            raise ToolError(f"{host[:80]} is an address in a form that is not accepted; write it as a.b.c.d.")
        if not any(rule.fits(host, port, _DEFAULT_PORTS[url.scheme]) for rule in self._rules):
            raise ToolError(
                f"{host[:80]}, port {port}, is not among the hosts that may be fetched (http_fetch_allow)."
            )

    def check_address(self, address: Address) -> None:
        """Raises ToolError for an address that is not a public one of this internet."""
        if address.is_loopback and self._allow_loopback:
            return
        if isinstance(address, ipaddress.IPv4Address):
            public = address.is_global and not any(address in network for network in _NEVER4)
        else:
            # Mapped, translated and tunnelled addresses lie outside of these: they stand for another one.
            public = address.is_global and address in _UNICAST6 and not any(address in n for n in _NEVER6)
        if not public:
            raise ToolError(f"{address} is not a public address: it is not fetched from.")

    async def resolve(self, url: URL) -> Sequence[tuple[socket.AddressFamily, str]]:
        """The addresses of the URL's host, each checked: one that is not public refuses them all. Raises ToolError."""
        host, port = url.raw_host or "", url.port or 0
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                _lookups, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError):
            raise ToolError(f"{host[:80]} cannot be resolved.", retryable=True) from None
        addresses = list(dict.fromkeys((family, str(sockaddr[0])) for family, _, _, _, sockaddr in found))
        for _, address in addresses:
            self.check_address(ipaddress.ip_address(address.partition("%")[0]))
        return addresses


def parse_url(text: str) -> URL:
    """The URL that a text is, as it is going to be used. Raises ToolError."""
    if len(text) > MAX_URL:
        raise ToolError(f"The URL has {len(text)} characters; max_url={MAX_URL}.")
    if _UNSAFE.search(text):
        raise ToolError("The URL holds a space, a control character or a backslash.")
    try:
        return URL(text).with_fragment(None)
    except ValueError:
        raise ToolError("This is not a URL.") from None


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _rule(pattern: str) -> _Rule:
    match = _PATTERN.fullmatch(pattern.lower())
    port = int(match["port"]) if match and match["port"] else None
    if match is None or port == 0 or (port or 0) > 65535:
        raise PatternInvalid(
            f"{pattern!r} is no pattern of hosts: example.com, *.example.com or *, and :port if need be"
        )
    return _Rule(match["host"].strip("*[]"), port)
