"""What the adapter to Apache Iggy is told; read by settings, used by bus/iggy."""

from dataclasses import dataclass
from typing import Literal

from kfm_server.secret import NO_SECRET, Secret

Transport = Literal["tcp", "quic", "websocket"]


@dataclass(frozen=True, slots=True)
class IggySettings:
    """`[iggy]`: where the broker is, who we are there, and what the topics are that we make. Durations in seconds."""

    address: str = ""
    """host:port of an Iggy server 0.9; empty: there is no broker"""
    transport: Transport = "tcp"
    username: str = "iggy"
    password: Secret = NO_SECRET
    token: Secret = NO_SECRET
    """a personal access token, instead of username and password"""
    tls: bool = False
    """always with a check of the server's certificate; quic is encrypted by itself"""
    tls_domain: str = ""
    """the name in the certificate; empty: the host of the address"""
    tls_ca_file: str = ""
    """PEM; empty: the system's authorities, and always those with quic"""
    stream: str = "kfm-dev"
    """each environment has its own"""
    durable: bool = True
    """what is acknowledged survives a crash of the broker; counts when a topic is made"""
    retention: float = 604_800.0
    """how long the broker keeps messages, in whole segments; 0: for ever; counts when a topic is made"""
    max_partition_bytes: int = 0
    """how much a partition holds before its oldest segments go; 0: no bound; counts when a topic is made"""
    pools: tuple[str, ...] = ()
    """worker pools that take their PURE and IDEMPOTENT steps from the broker (`kfm worker --bus`); other steps go over gRPC"""
    deadline: float = 5.0
    """longest wait for one answer, besides a second for each 10 MB"""
