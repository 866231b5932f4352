"""Healthy fleets through every detector as it is: at most t/T false alarms by time t, and more once a rule is broken.

References are built by the product, requests come as the worker sends them, and go through classes, detectors, ticks
and the e-detector. What is asserted is as in test_false_alarms.py: an upper confidence bound on the mean number of
alarms of a fleet is at most t/T, or, with a rule broken, a lower one is above it.
"""

import numpy as np
import pytest

from introspan_collector.detect.live.extremes import BEYOND
from introspan_wire.signals import Kind
from tests.fleets import (
    TICKS,
    Law,
    Traffic,
    alarms,
    alarms_by_request,
    course,
    diurnal,
    drifts,
    references,
    replicas_course,
)

pytestmark = pytest.mark.thorough

MEAN_TICKS = 40
ALLOWED = TICKS / MEAN_TICKS
DETECTORS = ("bank", "extremes", "drift", "classes", "repetition")
SCENARIOS = {
    "independent": (Law(), Traffic()),
    "bursts": (Law(), Traffic(burst=4)),
    "diurnal": (Law(), Traffic(rate=diurnal)),
    "ties": (Law(160, step=1.0), Traffic()),
    "tiny reference": (Law(80), Traffic()),
    "everything at once": (Law(80, step=1.0), Traffic(rate=diurnal, burst=4)),
}


def interval(counts):
    """A confidence interval for the expected number of alarms of a fleet; wrong once in 700 on each side."""
    error = 3 * counts.std(ddof=1) / np.sqrt(len(counts))
    return counts.mean() - error, counts.mean() + error


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_false_alarms_of_every_detector_and_of_all_together_are_within_the_bound(scenario):
    found = course(*SCENARIOS[scenario])
    counts = {name: alarms(found, found.rows(name), MEAN_TICKS) for name in DETECTORS}
    counts["all together"] = alarms(found, found.rows(*DETECTORS), MEAN_TICKS)
    print({name: f"{one.mean():.2f} of {ALLOWED}" for name, one in counts.items()})
    for name in DETECTORS:
        rows = found.rows(name)
        assert (np.isfinite(found.means[:, rows]).any(axis=0) & (found.bound[rows] < 1)).any(), name
    assert {name: one for name, one in counts.items() if interval(one)[1] > ALLOWED} == {}


@pytest.mark.parametrize(("burst", "is_sticky"), [(1, True), (4, False), (4, True)])
def test_false_alarms_of_replicas_are_within_the_bound_and_near_it_wherever_routers_send_sessions(
    burst, is_sticky
):
    found = replicas_course(3, burst, is_sticky=is_sticky)
    counts = alarms(found, found.rows("replicas"), MEAN_TICKS)
    print(f"{counts.mean():.2f} alarms of {ALLOWED} allowed")
    assert interval(counts)[1] <= ALLOWED
    assert counts.mean() > 0.1 * ALLOWED


def test_replicas_that_count_requests_and_not_sessions_alarm_too_often_under_a_router_that_keeps_sessions_together():
    broken = replicas_course(3, 12, is_sticky=True, clusters_count=False)
    counts = alarms(broken, broken.rows("replicas"), MEAN_TICKS)
    print(f"{counts.mean():.2f} alarms of {ALLOWED} allowed")
    assert interval(counts)[0] > ALLOWED


def without_tolerance(found, name, law):
    """m of each stream as it would be if the reference were healthy traffic itself."""
    rows = found.rows(name)
    streams = [found.streams[row] for row in rows]
    if name == "bank":
        return np.array([0.05 if stream.side in ("high", "low") else 0.5 for stream in streams])
    made = {reference.identity.model: i for i, reference in enumerate(references(law))}
    if name == "drift":
        of = [drifts(law)[made[stream.model]][0] for stream in streams]
        return np.array([0.5 - np.nanmin(one._allowed) / (2 * one._clip) for one in of])
    rank = {f"beyond all but {k - 1}" if k > 1 else "beyond all": k for k in BEYOND}
    sizes = [
        len(references(law)[made[stream.model]].populations[Kind(stream.kind)].scores) for stream in streams
    ]
    return np.array([min(rank[stream.side] / (n + 1), 1.0) for stream, n in zip(streams, sizes, strict=True)])


@pytest.mark.parametrize(
    ("name", "law", "traffic"),
    [
        ("bank", *SCENARIOS["tiny reference"]),
        ("extremes", *SCENARIOS["tiny reference"]),
        # What a direction has in it of the reference's own error, much traffic shows.
        ("drift", Law(160), Traffic(rate=lambda _: 60.0, ticks=60)),
    ],
    ids=["bank", "extremes", "drift"],
)
def test_without_the_tolerance_a_small_reference_alarms_too_often(name, law, traffic):
    """And with it the same references under the same traffic stay within the bound."""
    found = course(law, traffic)
    rows = found.rows(name)
    broken = alarms(found, rows, traffic.ticks, without_tolerance(found, name, law))
    kept = alarms(found, rows, traffic.ticks)
    print(f"{broken.mean():.2f} alarms without, {kept.mean():.2f} with it, 1 allowed")
    assert interval(kept)[1] <= 1 < interval(broken)[0]


@pytest.mark.parametrize("name", ["bank", "extremes"])
def test_a_step_for_every_request_alarms_too_often_under_bursts(name):
    """The same requests by ticks of clusters stay within the bound."""
    found = course(Law(), Traffic(rate=lambda _: 2.0, burst=20, ticks=60), 1)
    broken = alarms_by_request(found, name, MEAN_TICKS)
    kept = alarms(found, found.rows(name), MEAN_TICKS)
    allowed = 60 / MEAN_TICKS
    print(f"{broken.mean():.2f} alarms by request, {kept.mean():.2f} by tick, {allowed} allowed")
    assert interval(kept)[1] <= allowed < interval(broken)[0]
