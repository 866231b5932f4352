"""The output probe whose copy of logits fails: what was not kept is not measured."""

import numpy as np
import pytest
import torch

from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.output_probe import OutputProbe
from introspan.capture.rows import Selection
from introspan.capture.sampler import Sampling
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
