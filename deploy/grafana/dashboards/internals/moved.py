"""What moved, and since when? Evidence, drift and canaries of one model over time."""

from deploy.grafana.expressions import alarms, evidence
from deploy.grafana.layout import Section
from deploy.grafana.links import REQUESTS, same
from deploy.grafana.look import BLUE, DASHED, NOTE, SERIES
from deploy.grafana.panels import Face, lines
from deploy.grafana.queries import Query, most, of
from deploy.grafana.thresholds import CANARY, EVIDENCE, PAGE_FLOORS
from deploy.grafana.variables import ADAPTERS, MODEL
from introspan_collector.detect.sequential.evidence import SHARES

_DETECTORS = dict(zip(SHARES, (*SERIES, *SERIES), strict=False))
_KINDS = {"prompt": BLUE, "decoded": NOTE}
_DISTANCE = of("introspan_latent_drift_distance", MODEL, ADAPTERS)
_CHANCE = of("introspan_latent_drift_threshold", MODEL, ADAPTERS)


def _by_detector(copy: str) -> Query:
    return Query(
        most(
            "detector", of("introspan_evidence_level", MODEL, ADAPTERS, f'copy="{copy}"', 'detector!="all"')
        ),
        "{{detector}}",
    )


SECTION = Section(
    "What moved, and since when?",
    (
        lines(
            Face(
                "Evidence for a page, by detector",
                "Which detector sees something: decimal logarithm of its evidence over the threshold. Bad: at the "
                "dashed line, 0. One alone names the kind of fault: canary and sampler are the model or engine, "
                "classes the traffic, bank, extremes and drift either.",
                "none",
                none="not watched yet",
            ),
            _by_detector("page"),
            colours=_DETECTORS,
            above=EVIDENCE,
            links=(same(REQUESTS, "Requests at that time"),),
        ).axis_soft_max(1),
        lines(
            Face(
                "Evidence for a ticket, by detector",
                "The same for a ticket, which takes less. Bad: at the dashed line, 0. What a page will say is seen "
                "here first.",
                "none",
                none="not watched yet",
            ),
            _by_detector("ticket"),
            colours=_DETECTORS,
            above=EVIDENCE,
            links=(same(REQUESTS, "Requests at that time"),),
        ).axis_soft_max(1),
        lines(
            Face(
                "Drift of the residual stream: distance",
                "How far the last minute's requests are, where the stream is, from the reference, from 0 to 2. Dashed: "
                "what chance alone makes of it in all but one of a thousand looks, more where requests are few. Bad: a "
                "line that stays above its dashed one. Prompts see input and weights; decoded rows what was drawn too.",
                "none",
                none="no reference yet: still collecting",
            ),
            Query(most("kind", _DISTANCE), "{{kind}}"),
            Query(most("kind", f"{_CHANCE} and topk by (kind) (1, {_DISTANCE})"), "{{kind}}, chance"),
            colours=_KINDS | {f"{kind}, chance": colour for kind, colour in _KINDS.items()},
        )
        .override_by_regexp("/, chance$/", [DASHED])
        .min(0),
        lines(
            Face(
                "Drift of the residual stream: evidence and threshold",
                "The test of the same: evidence over threshold, for page and ticket. Bad: at the dashed line, 0.",
                "none",
                none="no reference yet: still collecting",
            ),
            Query(f"max({evidence('page', MODEL, ADAPTERS, detector='drift')})", "page"),
            Query(f"max({evidence('ticket', MODEL, ADAPTERS, detector='drift')})", "ticket"),
            colours={"page": NOTE, "ticket": BLUE},
            above=EVIDENCE,
        ).axis_soft_max(1),
        lines(
            Face(
                "Canary by replica",
                f"Answers to known questions, in floors of what chance explains. Bad: above {PAGE_FLOORS:g}. All "
                "replicas together: what was deployed. One alone: its machine, its disk or its copy of the weights.",
                "none",
                none="no canary is asked",
            ),
            Query(most("replica", of("introspan_canary_distance", MODEL)), "{{replica}}"),
            above=CANARY,
        )
        .min(0)
        .axis_soft_max(10),
        lines(
            Face(
                "Incident over time",
                "When an incident was open: the time to compare the heatmaps below with. Bad: 1.",
                "none",
                none="not watched yet",
            ),
            Query(most("", alarms("warning", MODEL, ADAPTERS)), "ticket"),
            Query(most("", alarms("critical", MODEL, ADAPTERS)), "page"),
            colours={"ticket": BLUE, "page": NOTE},
        )
        .min(0)
        .max(1)
        .decimals(0),
    ),
)
