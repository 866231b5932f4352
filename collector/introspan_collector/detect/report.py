"""The detector's state in, JSON out — and the decisions of people, as JSON, in."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.builder import Builder, Progress
from introspan_collector.detect.canaries import Canaries, Round
from introspan_collector.detect.detector import Detector
from introspan_collector.detect.evidence import Stream
from introspan_collector.detect.finding import Copy, Subject
from introspan_collector.detect.incident import Acknowledgement
from introspan_collector.detect.incident_record import as_json
from introspan_collector.detect.knowledge import Pieces
from introspan_collector.detect.maintenance import Window
from introspan_collector.detect.reference import State
from introspan_collector.detect.reference_file import content_hash, from_bytes, to_bytes
from introspan_collector.detect.watch import Building, Watch

ALL = "all"
"""Stands for all detectors of a model and adapter together: what the threshold is for."""

# Any: JSON.
Answer = dict[str, Any]

_LN10 = math.log(10.0)


class Report:
    """What the detector knows and can be told, for whoever speaks JSON. Commands raise ValueError with a remedy."""

    def __init__(self, detector: Detector, clock: Callable[[], float] = time.time) -> None:
        self._detector = detector
        self._clock = clock
        self._groups: _Groups | None = None

    def alarms(self) -> list[Answer]:
        """Incidents: open ones in the order in which they opened, then those that are over, the last first."""
        incidents = self._detector.incidents
        return [as_json(one) for one in (*incidents.open(), *reversed(incidents.history()))]

    def alarm(self, id_: str) -> Answer | None:
        """One of them, None for an id that is not known."""
        found = self._detector.incidents.find(id_)
        return None if found is None else as_json(found)

    def opened(self) -> list[Answer]:
        """How many began since the start, by model, adapter and name of the alert."""
        with self._detector.still():
            counts = list(self._detector.opened.items())
        return [
            {"model": model, "adapter": adapter, "alertname": alertname, "count": count}
            for (model, adapter, alertname), count in sorted(counts)
        ]

    def acknowledge(self, id_: str, by: str, comment: str, *, accept_as_class: bool) -> Answer:
        """The incident that somebody looks after now; accepted says what is done to learn it, "" for nothing."""
        done = Acknowledgement(by, comment, self._clock(), accept_as_class)
        accepted = self._detector.acknowledge(id_, done)
        return {"alarm": self.alarm(id_), "accepted": accepted}

    def windows(self) -> list[Answer]:
        """Announced deploys that are not over."""
        now = self._clock()
        return [_window(one) for one in self._detector.incidents.windows() if one.end_unix_seconds > now]

    def announce(self, model: str, start: float | None, end: float, reason: str) -> Answer:
        """The announced deploy, from start (now where it is None) to end, in Unix seconds."""
        now = self._clock()
        window = Window(model, now if start is None else start, end, reason)
        if window.end_unix_seconds <= now:
            raise ValueError(f"end must be after now, {now:.0f}, got {end:.0f}: announce what is to come")
        with self._detector.still() as state:
            state.pieces.incidents.announce(window, now)
        return _window(window)

    def withdraw(self, id_: str) -> None:
        """Forgets an announced deploy."""
        with self._detector.still() as state:
            state.pieces.incidents.withdraw(id_)

    def references(self) -> list[Answer]:
        """What every model and adapter is compared with, and what is being built for it."""
        with self._detector.still() as state:
            return [_reference(subject, watch) for subject, watch in sorted(state.watches.items())]

    def export(self, model: str, adapter: str, *, draft: bool) -> bytes:
        """The file of the reference that is compared with; of what was collected for the next one, if draft."""
        with self._detector.still() as state:
            watch = state.watches.get(Subject(model, adapter))
            if watch is None:
                raise ValueError(_unknown(model, adapter))
            reference = watch.reference
            collected = watch.draft() if draft else None
        if collected is not None:
            # Not under the lock: fitting takes a second.
            builder = Builder(collected[0])
            builder.restore(collected[1])
            return to_bytes(builder.reference(State.PROVISIONAL, int(self._clock())))
        if reference is None:
            raise ValueError(
                f"{Subject(model, adapter)} has no reference yet: wait for one, or export what was collected"
            )
        return to_bytes(reference)

    def adopt(self, data: bytes) -> Answer:
        """The reference in a file, which is compared with from now on."""
        reference = from_bytes(data)
        self._detector.adopt(reference)
        return {"identity": asdict(reference.identity), "state": reference.state.value,
                "content_sha256": content_hash(reference)}  # fmt: skip

    def promote(self, model: str, adapter: str) -> Answer:
        """The frozen reference that was made of what was collected."""
        reference = self._detector.promote(Subject(model, adapter))
        return {"identity": asdict(reference.identity), "state": reference.state.value,
                "content_sha256": content_hash(reference)}  # fmt: skip

    def canaries(self) -> list[Answer]:
        """How every model's canary stands, and its last round at each replica."""
        now = self._clock()
        with self._detector.still() as state:
            canaries = state.pieces.canaries
            rounds: dict[str, list[Round]] = {}
            for one in canaries.last():
                rounds.setdefault(one.model, []).append(one)
            models = sorted({*rounds, *canaries.models(), *state.asked})
            return [
                {
                    **_canary(canaries, model),
                    "wanted": model in state.asked or canaries.wanted(model),
                    "replicas": [_round(one, now) for one in rounds.get(model, ())],
                }
                for model in models
            ]

    def promote_canary(self, model: str) -> Answer:
        """How the canary of a model stands whose gathered rounds were made its baseline."""
        self._detector.promote_canary(model)
        with self._detector.still() as state:
            return _canary(state.pieces.canaries, model)

    def detection(self) -> Answer:
        """How much evidence there is, and what was left out."""
        with self._detector.still() as state:
            pieces = state.pieces
            return {
                "streams": len(pieces.roster.streams),
                "watched": len(state.watches),
                "unwatched_requests": self._detector.unwatched_requests,
                "dropped_values": pieces.ticks.dropped_values,
                "refused_findings": pieces.incidents.refused_findings,
                "threshold_log10": 0.0,
                "levels": self._levels(pieces),
            }

    def _levels(self, pieces: Pieces) -> list[Answer]:
        """log₁₀ of evidence over threshold by detector, and of all of a model together; None before there is any."""
        found = []
        for copy, test in ((Copy.TICKET, pieces.ticket), (Copy.PAGE, pieces.page)):
            if self._groups is None or self._groups.streams is not test.streams:
                self._groups = _grouped(test.streams)
            for detector, level in zip(self._groups.names, self._groups.sums(test.evidence()), strict=True):
                known = level if math.isfinite(level) else None
                found.append({**detector._asdict(), "copy": copy.value, "log10": known})
        return found


class _Name(NamedTuple):
    model: str
    adapter: str
    detector: str


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Streams by detector, and by model and adapter; rows: intp [2, S], for each stream its places in names."""

    streams: tuple[Stream, ...]
    names: tuple[_Name, ...]
    rows: NDArray[np.intp]

    def sums(self, log10: NDArray[np.float64]) -> list[float]:
        """log₁₀ of the sum over the streams of each group."""
        summed = np.full(len(self.names), -np.inf)
        for rows in self.rows:
            np.logaddexp.at(summed, rows, log10 * _LN10)
        log10s: list[float] = (summed / _LN10).tolist()
        return log10s


def _grouped(streams: tuple[Stream, ...]) -> _Groups:
    places: dict[_Name, int] = {}
    rows = [
        [
            places.setdefault(_Name(one.model, one.adapter, detector or one.detector), len(places))
            for one in streams
        ]
        for detector in ("", ALL)
    ]
    return _Groups(streams, tuple(places), np.array(rows, np.intp))


def _reference(subject: Subject, watch: Watch) -> Answer:
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


def _canary(canaries: Canaries, model: str) -> Answer:
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
    return {"model": model, "baseline": known, "gathered": gathered, "needed": needed, "problem": problem}


def _round(one: Round, now: float) -> Answer:
    time_unix_seconds = one.time_unix_nano / 1e9
    answer: Answer = {
        "replica": one.replica,
        "time": time_unix_seconds,
        "age_seconds": max(now - time_unix_seconds, 0.0),
        "prompts": list(one.questions),
        "deviating_in_a_row": one.in_a_row,
    }
    found = one.comparison
    if found is None:
        return answer | {"compared": False}
    return answer | {
        "compared": True,
        "ratio": found.ratio,
        "output_ratio": found.output_ratio,
        "layer_ratios": list(found.state_ratio),
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


def _window(window: Window) -> Answer:
    return {
        "id": window.id,
        "model": window.model,
        "start": window.start_unix_seconds,
        "end": window.end_unix_seconds,
        "reason": window.reason,
    }


def _unknown(model: str, adapter: str) -> str:
    return f"nothing was heard of {Subject(model, adapter)}: list the references and take one of those"
