"""Sources in, the text of /metrics out."""

from collections.abc import Iterable

from prometheus_client import exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from introspan_collector.expose.families import signal_families
from introspan_collector.expose.self_families import collector_families, sdk_families
from introspan_collector.expose.sources import Sources


class _Snapshot:
    """Families that are already made, as a collector of prometheus_client."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(sources: Sources, accept_header: str) -> tuple[bytes, str]:
    """The body and content type of a scrape: OpenMetrics with exemplars where asked for, else Prometheus text."""
    view = sources.aggregates.view()
    families = [
        *collector_families(sources.stats(), sources.archive.stats(), view),
        *sdk_families(view),
        *signal_families(view),
    ]
    encoder, content_type = exposition.choose_encoder(accept_header)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(family for family in families if family.samples))
    return encoder(registry), content_type
