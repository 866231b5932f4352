"""The output probe of a device, before anything is computed: what it keeps, where, and what it finds out in time."""

import numpy as np
import pytest
import torch

from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.output.device_probe import DeviceOutputProbe
from introspan.capture.rows import Selection
from introspan.capture.runner.arrival import Drawn
from introspan.observation import Request

LAYOUT = lay_out((), (), (), range(0))
CPU = torch.device("cpu")


def one_row(batch: int) -> Selection:
    request = Request("a", "a", b"", b"", 0, "", 1, 0, 1.0, 1)
    at = [np.array([value]) for value in (0, 0, batch, 3, 0)]
    return Selection([request], *at, np.array([True]))


def drawn(*tokens: int) -> Drawn:
    return Drawn(torch.tensor(tokens).unsqueeze(1))


def probe_of(rows_max: int = 4) -> DeviceOutputProbe:
    return DeviceOutputProbe(LAYOUT, 4, rows_max, Health())


def test_a_row_that_is_not_there_is_found_out_before_the_device_is_asked_for_it():
    probe = probe_of()
    probe.keep(one_row(0), torch.randn(1, 10))
    with pytest.raises(IndexError, match="row 7 of 1"):
        probe.keep(one_row(7), torch.randn(1, 10))
    probe.deliver(one_row(0), 0, drawn(5))
    assert probe.launch(one_row(0)) == [], "logits of an earlier step were taken for those that were not kept"


def test_a_token_that_is_not_there_is_found_out_before_the_device_is_asked_for_it():
    probe = probe_of()
    probe.keep(one_row(1), torch.randn(2, 10))
    with pytest.raises(IndexError, match="row 1 of 1"):
        probe.deliver(one_row(1), 0, drawn(5))
    assert probe.launch(one_row(1)) == []


def test_tokens_that_can_only_be_asked_for_one_by_one_are_refused():
    probe = probe_of()
    probe.keep(one_row(0), torch.randn(1, 10))
    with pytest.raises(TypeError, match="one by one"):
        probe.deliver(one_row(0), 0, lambda _: 5)


def test_rows_of_a_step_whose_tokens_never_came_are_forgotten():
    probe = probe_of()
    probe.keep(one_row(0), torch.randn(1, 10))
    probe.abandon()
    probe.deliver(one_row(0), 0, drawn(5))
    assert probe.launch(one_row(0)) == []


def test_memory_is_made_once_and_no_row_goes_beyond_it():
    probe = probe_of(rows_max=2)
    probe.reserve(10, torch.bfloat16, CPU)
    address = probe._logits.data_ptr()
    for _ in range(2):
        for before in range(2):
            probe.keep(one_row(0), torch.randn(1, 10).bfloat16())
            probe.deliver(one_row(0), before, drawn(5))
        with pytest.raises(ValueError, match="3 rows of logits do not fit 2"):
            probe.keep(one_row(0), torch.randn(1, 10).bfloat16())
        probe.drop()
    assert probe._logits.data_ptr() == address
    assert probe._logits.shape == (2, 10)


def test_logits_of_another_kind_than_was_reserved_are_kept_as_they_are_but_never_behind_others():
    probe = probe_of()
    probe.reserve(12, torch.bfloat16, CPU)
    logits = torch.randn(1, 10)
    probe.keep(one_row(0), logits)
    probe.deliver(one_row(0), 0, drawn(5))
    assert torch.equal(probe._logits[:1], logits)
    with pytest.raises(ValueError, match="behind others"):
        probe.keep(one_row(0), torch.randn(1, 12))
