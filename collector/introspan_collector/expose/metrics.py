"""Sources in, the text of /metrics out."""

from prometheus_client.exposition import choose_encoder

from introspan_collector.expose.deploy_families import deploy_families
from introspan_collector.expose.detection_families import detection_families
from introspan_collector.expose.families import signal_families
from introspan_collector.expose.sdk_families import sdk_families
from introspan_collector.expose.self_families import collector_families
from introspan_collector.expose.sources import Sources
from introspan_collector.expose.text import encode, finished


def render(sources: Sources, accept_header: str) -> tuple[bytes, str]:
    """The body and content type of a scrape: OpenMetrics with exemplars where asked for, else Prometheus text."""
    view = sources.aggregates.view()
    _, content_type = choose_encoder(accept_header)
    openmetrics = content_type.startswith("application/openmetrics-text")
    about_us = (
        *collector_families(sources.stats(), sources.archive.stats(), view),
        *sdk_families(view),
        *deploy_families(view, sources.detection),
        *detection_families(sources.detection, sources.endpoints(), sources.deliveries()),
    )
    families = (*map(finished, about_us), *signal_families(view, openmetrics=openmetrics))
    return encode(families, openmetrics=openmetrics), content_type
