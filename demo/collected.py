"""The collector's JSON API in, one snapshot of means and counts out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

_NO_LAYER = -1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the collector knows now. means: (signal, layer) → mean over the window; layer -1: no layers."""

    means: Mapping[tuple[str, int], float] = field(default_factory=dict)
    window_seconds: float = 0.0
    segments: Mapping[str, int] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    disabled: tuple[str, ...] = ()
    measured_rows: int = 0
    capture_milliseconds_per_step: float | None = None

    @property
    def layers(self) -> list[int]:
        """The layers that have a value, from the first."""
        return sorted({layer for _, layer in self.means if layer != _NO_LAYER})

    def mean(self, signal: str, layer: int = _NO_LAYER) -> float | None:
        """The newest mean, or None where nothing was measured."""
        return self.means.get((signal, layer))


EMPTY = Snapshot()
"""Before anything has arrived."""


async def fetch(client: httpx.AsyncClient) -> Snapshot:
    """What the collector answers now. Raises httpx.HTTPError when it does not."""
    latest = (await client.get("/api/v1/latest")).raise_for_status().json()
    status = (await client.get("/api/v1/status")).raise_for_status().json()
    return read(latest, status)


# Any: JSON, as the API gives it.
def read(latest: dict[str, Any], status: dict[str, Any]) -> Snapshot:
    """The answers of /api/v1/latest and /api/v1/status as one snapshot."""
    means = {
        (series["signal"], _NO_LAYER if series["layer"] is None else series["layer"]): series["mean"]
        for series in latest["series"]
    }
    workers: list[dict[str, Any]] = status["replicas"]
    segments: Counter[str] = Counter()
    drops: Counter[str] = Counter()
    for worker in workers:
        segments.update(worker["segments"])
        drops.update(worker.get("drops", {}))
    disabled = [item for worker in workers for item in worker.get("disabled", [])]
    steps = sum(worker.get("measured_steps", 0) for worker in workers)
    seconds = sum(worker.get("capture_seconds", 0.0) for worker in workers)
    return Snapshot(
        means=means,
        window_seconds=latest["window_seconds"],
        segments=segments,
        drops=drops,
        disabled=tuple(f"{item['signal']}: {item['reason']}, {item['detail']}" for item in disabled),
        measured_rows=sum(worker.get("measured_rows", 0) for worker in workers),
        capture_milliseconds_per_step=1000.0 * seconds / steps if steps else None,
    )
