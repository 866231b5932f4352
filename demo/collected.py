"""The collector's JSON API in, one snapshot of means and counts out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the collector knows now. means: (signal, layer) → mean; layer -1 for a signal without layers."""

    means: Mapping[tuple[str, int], float] = field(default_factory=dict)
    accepted_segments: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    disabled: tuple[str, ...] = ()

    @property
    def layers(self) -> list[int]:
        """The layers that have a value, from the first."""
        return sorted({layer for _, layer in self.means if layer >= 0})

    def mean(self, signal: str, layer: int = -1) -> float | None:
        """The newest mean, or None where nothing was measured."""
        return self.means.get((signal, layer))


EMPTY = Snapshot()
"""Before anything has arrived."""


async def fetch(client: httpx.AsyncClient) -> Snapshot:
    """What the collector answers now. Raises httpx.HTTPError when it does not."""
    latest = (await client.get("/api/v1/latest")).raise_for_status().json()
    status = (await client.get("/api/v1/status")).raise_for_status().json()
    return Snapshot(latest, status)
