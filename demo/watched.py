"""The collector's API in, what it watches out: references, canaries, evidence and incidents of one model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A request that shows what is the matter."""

    request_id: str
    trace_id: str
    feature: str


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident, as people are told of it. resolution is "" while it is open."""

    id: str
    alertname: str
    severity: str
    verdict: str
    reasons: tuple[str, ...]
    layer: str
    sentences: tuple[str, ...]
    exemplars: tuple[Exemplar, ...]
    guarantee: str
    resolution: str

    @property
    def is_open(self) -> bool:
        """Whether it is not over."""
        return not self.resolution


@dataclass(frozen=True, slots=True)
class Watched:
    """What the collector has learnt and found of one model.

    levels: by detector and copy ("ticket", "page") log₁₀ of evidence over threshold, None before there is any;
    incidents: open ones first, then those that are over, the last first. differences: between the reference that is
    compared with and what is served; while there are any, nothing is compared.
    """

    reference: str = "none"
    differences: tuple[str, ...] = ()
    clusters: int = 0
    clusters_needed: int = 0
    canary_rounds: int = 0
    canary_rounds_needed: int = 0
    has_canary: bool = False
    canary: str = ""
    levels: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    incidents: tuple[Incident, ...] = ()

    @property
    def is_learnt(self) -> bool:
        """Whether there is something to compare with, of live traffic and of canaries."""
        return self.reference != "none" and self.has_canary


NOTHING = Watched()
"""Before anything was heard of."""


async def fetch(client: httpx.AsyncClient, model: str) -> Watched:
    """What the collector answers now. Raises httpx.HTTPError when it does not."""
    answers = {
        name: (await client.get(f"/api/v1/{name}")).raise_for_status().json()
        for name in ("references", "canaries", "detection", "alarms")
    }
    return read(answers, model)


# Any: JSON, as the API gives it.
def read(answers: Mapping[str, Any], model: str) -> Watched:
    """The answers of four addresses of the API, by their last part, as one picture."""

    def of_model(name: str) -> dict[str, Any]:
        return next((one for one in answers[name][name] if one["model"] == model), {})

    reference, canary = of_model("references"), of_model("canaries")
    building: dict[str, Any] = (reference.get("building") or [{}])[-1]
    present: dict[str, Any] = reference.get("reference") or {}
    levels: dict[str, dict[str, float | None]] = {}
    for level in answers["detection"]["levels"]:
        if level["model"] == model:
            levels.setdefault(level["detector"], {})[level["copy"]] = level["log10"]
    return Watched(
        reference=reference.get("state", "none"),
        differences=tuple(present.get("differs_from_served", ())),
        clusters=building.get("clusters", 0),
        clusters_needed=building.get("provisional_clusters", 0),
        canary_rounds=canary.get("gathered", 0),
        canary_rounds_needed=canary.get("needed", 0),
        has_canary=canary.get("baseline") is not None,
        canary=_round(canary.get("replicas", [])),
        levels=levels,
        incidents=tuple(_incident(one) for one in answers["alarms"]["alarms"] if one["model"] == model),
    )


# Any: as above.
def _round(rounds: list[dict[str, Any]]) -> str:
    last = max((one for one in rounds if one["compared"]), key=lambda one: float(one["time"]), default=None)
    if last is None:
        return ""
    if not last["deviates"]:
        return f"like its baseline ({last['ratio']:.1f} of 8)"
    place = f", from {last['place']} on" if last["place"] else ""
    return f"DEVIATES{place}: KL {last['kl_nats']:.2g} nats, {last['flipped']} greedy tokens flipped"


# Any: as above.
def _incident(one: dict[str, Any]) -> Incident:
    triage = one["triage"]
    return Incident(
        id=one["id"],
        alertname=one["alertname"],
        severity=one["severity"],
        verdict=triage["verdict"],
        reasons=tuple(triage["reasons"]),
        layer=one["layer"],
        # The copy that pages says much the same of a stream as the copy that raises tickets.
        sentences=tuple({str(clue["stream"]): clue["sentence"] for clue in one["evidence"]}.values()),
        exemplars=tuple(
            Exemplar(item["request_id"], item["trace_id"], item["feature"]) for item in one["exemplars"]
        ),
        guarantee=one["guarantee"],
        resolution=one["resolution"],
    )
