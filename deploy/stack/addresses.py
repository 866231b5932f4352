"""Ports that are wished for in, the addresses on loopback that each program gets out."""

from dataclasses import dataclass

from demo.processes import loopback_port


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where each of them listens, as host:port."""

    grpc: str
    collector: str
    prometheus: str
    alertmanager: str


def free_addresses() -> Addresses:
    """Their usual ports, or free ones where somebody has those already."""
    return Addresses(*(f"127.0.0.1:{loopback_port(port)}" for port in (4317, 9464, 9090, 9093)))
