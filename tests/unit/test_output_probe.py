"""The output probe whose copy of logits fails: what was not kept is not measured."""

import numpy as np
import pytest
import torch
from scipy import stats

from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.output.probe import OutputProbe
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Selection
from introspan.observation import Request

LAYOUT = lay_out((), (), (), range(0))


def one_row(batch):
    request = Request("a", "a", b"", b"", 0, "", 1, 0, 1.0, 1)
    at = [np.array([value]) for value in (0, 0, batch, 3, 0)]
    return Selection([request], *at, np.array([True]))


def test_logits_that_could_not_be_kept_are_not_taken_for_those_of_an_earlier_step():
    probe = OutputProbe(LAYOUT, 4, 8, Health())
    probe.begin(0, Sampling(1.0, 0, 1.0, 0.0, reproducible=True))
    probe.keep(one_row(0), torch.randn(1, 10))
    probe.deliver(one_row(0), 0, lambda _: 3)
    probe.drop()
    with pytest.raises(IndexError):  # as where there is no memory for a copy
        probe.keep(one_row(7), torch.randn(1, 10))
    probe.deliver(one_row(0), 0, lambda _: 5)
    values = np.full((1, len(LAYOUT.columns)), np.nan, np.float32)
    probe.measure(one_row(0), values)
    assert np.isnan(values).all()


def test_requests_that_their_clients_gave_one_id_break_ties_each_in_its_own_way():
    """Of a flat distribution U is V alone: with one V for all of them they would all be evidence, or none."""
    count = 400
    requests = [Request(f"same-{i:08x}", "same", b"", b"", 0, "", 1, 0, 1.0, 1) for i in range(count)]
    rows = np.arange(count)
    every = Selection(requests, rows, rows, rows, np.full(count, 3), rows * 0, rows >= 0)
    probe = OutputProbe(LAYOUT, count, count, Health())
    for slot in range(count):
        probe.begin(slot, Sampling(1.0, 0, 1.0, 0.0, reproducible=True))
    probe.keep(every, torch.zeros(count, 10))
    probe.deliver(every, 0, lambda place: place % 10)
    values = np.full((count, len(LAYOUT.columns)), np.nan, np.float32)
    probe.measure(every, values)
    u = values[:, LAYOUT.blocks["sampler.pit"].start]
    assert stats.kstest(u, "uniform").pvalue > 1e-3


def test_a_request_whose_parameters_cannot_be_computed_with_costs_no_other_its_sampler_signals():
    requests = [Request(key, key, b"", b"", 0, "", 1, 0, 1.0, 1) for key in "abc"]
    rows = np.arange(3)
    every = Selection(requests, rows, rows, rows, np.full(3, 3), rows * 0, rows >= 0)
    health = Health()
    probe = OutputProbe(LAYOUT, 3, 3, health)
    for slot, top_k in enumerate((5, "many", 5)):
        probe.begin(slot, Sampling(1.0, top_k, 1.0, 0.0, reproducible=True))
    probe.keep(every, torch.randn(3, 10))
    probe.deliver(every, 0, lambda place: place)
    values = np.full((3, len(LAYOUT.columns)), np.nan, np.float32)
    probe.measure(every, values)
    measured = ~np.isnan(values)
    assert measured[:, LAYOUT.blocks["output.entropy"].start].all()
    assert measured[:, LAYOUT.blocks["sampler.pit"].start].tolist() == [True, False, True]
    assert health.errors == {"sampler": 1}
