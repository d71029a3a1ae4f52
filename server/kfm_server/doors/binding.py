"""Where a door may listen."""

import hmac
import ipaddress
import re

_SHORTEST_TOKEN = 8
"""Characters of a token that guards a door which other machines can reach."""


class BindRefused(ValueError):
    """The address is not one that a door may listen on; the text says why."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; brackets around an IPv6 host are taken off. BindRefused if it is neither."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise BindRefused(f"{address!r} is not host:port")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_bind(address: str, token: str) -> None:
    """Refuse, with BindRefused, an address beyond loopback when no token, or one soon guessed, guards the door."""
    host, _ = split_address(address)
    if len(token) < _SHORTEST_TOKEN and not is_loopback(host):
        lack = "KFM_TOKEN is short" if token else "no token is set"
        raise BindRefused(
            f"{address} can be reached from other machines and {lack}: set KFM_TOKEN to"
            f" {_SHORTEST_TOKEN} characters or more, or bind 127.0.0.1"
        )


def check_advertised(address: str) -> None:
    """Refuse, with BindRefused, what others cannot dial: no port, or every address at once."""
    _, port = split_address(address)
    if port == 0 or not reachable(address):
        raise BindRefused(f"{address!r} is not an address that another process can reach")


def reachable(address: str) -> str:
    """The address where others reach a door that listens at `address`; empty if that cannot be known, as for 0.0.0.0."""
    host, _ = split_address(address)
    return "" if host in ("0.0.0.0", "::") else address


def is_loopback(host: str) -> bool:
    """Whether a host is this machine only. Names other than localhost count as outside."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_matches(header: str | bytes, token: str) -> bool:
    """Whether an Authorization header is `Bearer` and the token; takes the same time for any header of one length."""
    given = header if isinstance(header, bytes) else header.encode("utf-8", "surrogateescape")
    return hmac.compare_digest(given, b"Bearer " + token.encode())
