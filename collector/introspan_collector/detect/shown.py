"""What the detector knows in, the same as JSON out."""

from dataclasses import asdict
from typing import Any

from introspan_collector.detect.builders import Building
from introspan_collector.detect.canary.round import Round
from introspan_collector.detect.canary.rounds import Canaries
from introspan_collector.detect.canary.standing import standing
from introspan_collector.detect.incident.finding import Subject
from introspan_collector.detect.incident.maintenance import Window
from introspan_collector.detect.reference.builder import Progress
from introspan_collector.detect.watch import Watch

# Any: JSON.
Answer = dict[str, Any]


def as_reference(subject: Subject, watch: Watch) -> Answer:
    """What a model and adapter is compared with, and what is being built for it."""
    present = watch.reference
    shown = None
    if present is not None:
        served = watch.served
        shown = {
            "identity": asdict(present.identity),
            "state": present.state.value,
            "content_sha256": watch.content_hash,
            **asdict(present.counts),
            "created_unix_seconds": present.created_unix_seconds,
            "classes": len(present.classes),
            "despite": list(present.despite),
            "differs_from_served": [] if served is None else list(present.identity.differences(served)),
        }
    return {
        "model": subject.model,
        "adapter": subject.adapter,
        "state": "none" if present is None else present.state.value,
        "reference": shown,
        "accepted_until_clusters": watch.accepting,
        "building": [_building(one) for one in watch.building()],
    }


def _building(one: Building) -> Answer:
    return {
        "identity": asdict(one.identity),
        **_progress(one.progress),
        "objections": list(one.objections),
    }


def _progress(progress: Progress) -> Answer:
    limits = progress.limits
    return {
        **asdict(progress.counts),
        "reached": "none" if progress.reached is None else progress.reached.value,
        "provisional_clusters": limits.provisional_clusters,
        "frozen_clusters": limits.frozen_clusters,
        "frozen_hours": limits.frozen_hours,
    }


def as_canary(canaries: Canaries, model: str, now: float) -> Answer:
    """How a model's canary stands, its baseline, and how far the next one is."""
    gathered, needed, problem = canaries.progress(model)
    baseline = canaries.baseline(model)
    known = None
    if baseline is not None:
        known = {
            "fingerprint": baseline.fingerprint,
            "engine_version": baseline.engine_version,
            "dtype": baseline.dtype,
            "suite": baseline.suite,
            "rounds": len(baseline.distances),
            "largest_distance": float(baseline.distances[-1]),
        }
    state = standing(canaries.last(model), now, has_baseline=baseline is not None)
    return {
        "model": model,
        "state": state.value,
        "baseline": known,
        "gathered": gathered,
        "needed": needed,
        "problem": problem,
    }


def as_round(one: Round, now: float) -> Answer:
    """A round, and how it compares where there is something to compare with."""
    time_unix_seconds = one.time_unix_nano / 1e9
    answer: Answer = {
        "replica": one.replica,
        "time": time_unix_seconds,
        "age_seconds": max(now - time_unix_seconds, 0.0),
        "suite": one.suite,
        "prompts": list(one.questions),
        "deviating_in_a_row": one.in_a_row,
        "data_parallel_rank": one.origin.data_parallel_rank,
    }
    found = one.comparison
    if found is None:
        return answer | {"compared": False}
    return answer | {
        "compared": True,
        "own_baseline": one.is_own,
        "ratio": found.distance,
        "ranked_ratio": found.ratio,
        "output_ratio": found.output_ratio,
        "layer_ratios": list(found.state_ratio),
        "step_ratios": list(found.step_ratio),
        "consistency_ratio": found.consistency_ratio,
        "layer": found.layer,
        "place": found.place,
        "kl_nats": found.kl_nats,
        "top1": found.top1,
        "flipped": found.flipped,
        "nonfinite": found.nonfinite,
        "has_states": found.has_states,
        "deviates": found.deviates,
        "equivalent": found.equivalent,
    }


def as_window(window: Window) -> Answer:
    """An announced deploy."""
    return {
        "id": window.id,
        "model": window.model,
        "start": window.start_unix_seconds,
        "end": window.end_unix_seconds,
        "reason": window.reason,
    }
