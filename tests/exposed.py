"""Parts of a collector in, the sources of its HTTP application out, with whatever is not given left idle."""

from introspan_collector.detect.detector import Detector
from introspan_collector.detect.report import Report
from introspan_collector.expose.sources import Sources
from introspan_collector.notify.notifier import NotifyStats

IDLE = NotifyStats({}, {}, {}, {}, {})
_BUILDING = {
    "identity": {},
    "requests": 90,
    "clusters": 70,
    "hours": 1.5,
    "reached": "provisional",
    "provisional_clusters": 60,
    "frozen_clusters": 2000,
    "frozen_hours": 24.0,
    "objections": ["70 of 2000 clusters"],
}


def watched_sources(
    aggregates, archive, stats, ready, *, detection=None, endpoints=(), deliveries=IDLE, token=None
):
    """Sources of a detector that has seen nothing, unless another is given."""
    detection = detection or Report(Detector())
    return Sources(
        aggregates, archive, stats, ready, detection, lambda: deliveries, lambda: list(endpoints), token
    )


class AsSeen:
    """A detector of which always the same is to be seen: one page, two references, a canary that deviates."""

    def active(self):
        page = {"model": "m", "adapter": "", "severity": "critical", "alertname": "IntrospanSamplerDeviates"}
        return [{**page, "notified": True}, {**page, "adapter": "poet", "notified": False}]

    def opened(self):
        return [{"model": "m", "adapter": "", "alertname": "IntrospanSamplerDeviates", "count": 2}]

    def references(self):
        frozen = {"clusters": 2000, "hours": 25.0}
        return [
            {"model": "m", "adapter": "", "state": "frozen", "reference": frozen, "building": []},
            {
                "model": "m",
                "adapter": "poet",
                "state": "provisional",
                "reference": {},
                "building": [_BUILDING],
            },
        ]

    def windows(self):
        return [{"id": "w", "model": "", "start": 0.0, "end": 4e9, "reason": "new weights"}]

    def canaries(self):
        still = {"replica": "r0", "age_seconds": 12.5, "compared": True, "ratio": 0.75, "layer": None}
        moved = {"replica": "r1", "age_seconds": 2.5, "compared": True, "ratio": float("inf"), "layer": 7}
        new = {"replica": "r2", "age_seconds": 1.5, "compared": False}
        return [
            {"model": "m", "state": "deviating", "gathered": 3, "needed": 64, "replicas": [still, moved, new]}
        ]

    def detection(self):
        levels = [("sampler", "ticket", -2.5), ("all", "ticket", 0.25), ("bank", "page", None)]
        return {
            "streams": 12,
            "watched": 2,
            "unwatched_requests": 3,
            "dropped_values": 4,
            "refused_findings": 5,
            "drift": [{"model": "m", "adapter": "", "kind": "prompt", "distance": 0.125, "threshold": 0.25}],
            "levels": [
                {"model": "m", "adapter": "", "detector": detector, "copy": copy, "log10": level}
                for detector, copy, level in levels
            ],
        }
