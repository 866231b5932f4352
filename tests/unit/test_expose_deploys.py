"""What /metrics says of deploys: what each worker serves, and while one is announced."""

from dataclasses import replace

import pytest

from bench.fleet import batch, origin
from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.expose.deploy_families import deploy_families

NOW = 1_800_000_000


class Announced:
    """A detector that watches two models, m twice, and knows of these windows."""

    def __init__(self, *windows):
        self._windows = [dict(zip(("model", "start", "end"), window, strict=True)) for window in windows]

    def windows(self):
        return self._windows

    def references(self):
        return [
            {"model": model, "adapter": adapter} for model, adapter in (("m", ""), ("m", "poet"), ("n", ""))
        ]


def samples(aggregator, detection, name):
    (family,) = (one for one in deploy_families(aggregator.view(), detection) if one.name == name)
    return [(sample.labels, sample.value) for sample in family.samples]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (("m", NOW - 1, NOW + 1), {"m": 1, "n": 0}),
        (("", NOW - 1, NOW + 1), {"m": 1, "n": 1}),
        (("m", NOW + 1, NOW + 2), {"m": 0, "n": 0}),
        (("m", NOW - 2, NOW), {"m": 0, "n": 0}),
        (("other", NOW - 1, NOW + 1), {"m": 0, "n": 0}),
    ],
)
def test_a_model_is_in_maintenance_while_a_window_of_it_or_of_all_lasts(window, expected):
    aggregator = Aggregator(clock_unix_nano=lambda: NOW * 10**9)
    found = samples(aggregator, Announced(window), "introspan_maintenance_active")
    assert {labels["model"]: value for labels, value in found} == expected
    assert len(found) == len(expected)


def test_a_worker_that_comes_back_with_another_model_has_one_series_of_what_it_serves_now():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW * 10**9)
    for number, fingerprint in enumerate(("before", "after")):
        who = replace(origin("m", "r0"), fingerprint=fingerprint)
        aggregator.consume(batch((), who=who, number=number, received_unix_nano=NOW * 10**9))
    ((labels, value),) = samples(aggregator, Announced(), "introspan_sdk_info")
    assert (labels["fingerprint"], labels["model"], labels["worker"], value) == (
        "after",
        "m",
        "tp0-pp0-dp0",
        1,
    )
