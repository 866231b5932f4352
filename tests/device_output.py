"""Rows of logits, what their requests asked and the tokens they got in; what both output probes measure of them out.

Run where kernels are interpreted: see `interpreted.py`.
"""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.output.device_probe import DeviceOutputProbe
from introspan.capture.output.probe import OutputProbe
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Selection, join
from introspan.capture.runner.arrival import Drawn, drawn_of
from introspan.observation import Request
from tests.device_attention import Waiting
from tests.waiting import DEVICE, waits_of

LAYOUT = lay_out((), (), (), range(0))


@dataclass(frozen=True, slots=True)
class Rows:
    """One step: of each request in the batch a row of logits [requests, V], its token, and whether it is measured.

    order: [requests] the row of logits of each, where that is another than its place. lists_tokens: the runner has
    read them itself.
    """

    logits: torch.Tensor
    tokens: list[int]
    is_measured: list[bool]
    sampling: list[Sampling | None]
    order: list[int] | None = None
    lists_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Values of the rows of all steps, and what health each probe told, the host's first."""

    host: np.ndarray
    device: np.ndarray
    skipped: tuple[int, int]
    errors: tuple[dict[str, int], dict[str, int]] = field(default_factory=lambda: ({}, {}))


def selection_of(step: int, rows: Rows, first_slot: int) -> Selection:
    """Every request is another in every step, at a position of its own."""
    count = len(rows.tokens)
    place = np.arange(count)
    requests = [Request(f"{step}-{i}", "r", b"", b"", 0, "", 1, 0, 1.0, 1) for i in range(count)]
    return Selection(
        requests, first_slot + place, place, place, 3 + place, place * 0, np.array(rows.is_measured)
    )


def _keep(probe: Any, selection: Selection, rows: Rows) -> None:
    order = np.arange(len(rows.tokens)) if rows.order is None else np.array(rows.order)
    logits = rows.logits.clone()
    probe.keep(replace(selection, batch=order), logits)
    logits.mul_(-0.5)  # as a sampler or a grammar may


def _drawn(rows: Rows) -> Drawn:
    tokens = torch.tensor(rows.tokens).unsqueeze(1)
    output = SimpleNamespace(sampled_token_ids=tokens.tolist())
    return drawn_of(output, None if rows.lists_tokens else tokens)


@torch.inference_mode()
def measured(steps: list[Rows], slots: int = 64, off: str = "") -> Found:
    """What both probes measure of some steps together. off: a probe that is switched off."""
    health, device_health = Health(), Health()
    host, device = (
        OutputProbe(LAYOUT, slots, slots, health),
        DeviceOutputProbe(LAYOUT, slots, slots, device_health),
    )
    for each in (health, device_health):
        if off:
            each.disabled[off] = None  # type: ignore[assignment]
    selections, before = [], 0
    for number, rows in enumerate(steps):
        selection = selection_of(number, rows, before)
        for slot, sampling in zip(selection.slot.tolist(), rows.sampling, strict=True):
            if sampling is not None:
                host.begin(slot, sampling)
                device.begin(slot, sampling)
        _keep(host, selection, rows)
        host.deliver(selection, before, _drawn(rows))
        with Waiting():
            _keep(device, selection, rows)
            device.deliver(selection, before, _drawn(rows))
        selections.append(selection)
        before += len(selection)
    selection = join(selections)
    values = [np.full((len(selection), len(LAYOUT.columns)), np.nan, np.float32) for _ in range(2)]
    host.measure(selection, values[0])
    with Waiting():
        parts = device.launch(selection)
    device.drop()
    for part in parts:
        assert part.numbers.dtype == torch.float32
        part.take(part.numbers.numpy().copy(), values[1])
    skipped = health.sampler_rows_skipped, device_health.sampler_rows_skipped
    return Found(values[0], values[1], skipped, (dict(health.errors), dict(device_health.errors)))


def _is_tensor(each: Any) -> bool:
    return isinstance(each, torch.Tensor)


class _Largest(TorchDispatchMode):
    """How many bytes the largest tensor has that an operator made."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if _is_tensor(each)}
        if _is_tensor(result) and result.untyped_storage()._cdata not in given:
            self.bytes = max(self.bytes, result.numel() * result.itemsize)
        return result


@torch.inference_mode()
def waits(rows: Rows) -> tuple[list[str], int, int]:
    """What waits for the device in a step and a flush; bytes of the largest tensor that each makes."""
    health = Health()
    probe, selection = DeviceOutputProbe(LAYOUT, 64, 64, health), selection_of(0, rows, 0)
    logits = rows.logits.to(DEVICE)
    probe.reserve(logits.shape[1], logits.dtype, DEVICE)
    for slot, sampling in enumerate(rows.sampling):
        if sampling is not None:
            probe.begin(slot, sampling)
    drawn = _drawn(rows)
    if not rows.lists_tokens:
        drawn = Drawn(drawn.tokens.to(DEVICE))
    order = selection if rows.order is None else replace(selection, batch=np.array(rows.order))

    def step() -> None:
        probe.keep(order, logits)
        probe.deliver(selection, 0, drawn)

    with _Largest() as of_step:
        found = waits_of(step)
    with _Largest() as of_flush:
        found += waits_of(lambda: probe.launch(selection))
    assert not health.errors
    return found, of_step.bytes, of_flush.bytes


def cuts(rows: Rows) -> int:
    """How many cuts are looked for in a flush of these rows, by all of them together."""
    from introspan.capture.kernels import sampler

    cut, found = sampler.cut, []

    def counted(*arguments: Any, **keywords: Any) -> Any:
        found.append(1)
        return cut(*arguments, **keywords)

    sampler.cut = counted
    try:
        measured([rows])
    finally:
        sampler.cut = cut
    return len(found)
