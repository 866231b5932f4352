"""Probes of a device in; the same, with their kernels compiled before a request waits for that, out.

Triton compiles a kernel when it is first called, for seconds. An engine that warms itself up waits for its own anyhow.
"""

import numpy as np
import torch

from introspan.capture.attention.device_probe import DeviceAttentionProbe
from introspan.capture.output.device_probe import DeviceOutputProbe
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Selection
from introspan.capture.stream.device_probe import DeviceStreamProbe
from introspan.observation import Request

_NOBODY = Request("", "", bytes(16), bytes(8), 0, "", 1, 0, 1.0, 0)
_EVERY_FILTER = Sampling(1.0, 2, 0.9, 0.1, reproducible=True)


class _First:
    """Tokens of a batch of one request: the first of the vocabulary."""

    def __len__(self) -> int:
        return 1

    def __call__(self, place: int) -> int:  # noqa: ARG002 - all are the same
        return 0

    def at(self, places: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(places)


def warm_up(
    stream: DeviceStreamProbe | None,
    attention: DeviceAttentionProbe | None,
    output: DeviceOutputProbe | None,
    logits: torch.Tensor,
) -> None:
    """Has each probe compute one row that is nobody's, and forget it. To be called when caches are bound.

    logits: [1, V], as a step's are.
    """
    nothing, row = np.zeros(1, np.int64), np.ones(1, np.bool_)
    selection = Selection([_NOBODY], nothing, nothing, nothing, nothing, nothing - 1, row)
    if stream is not None:
        stream.launch(selection)
    if attention is not None:
        attention.warm_up()
    if output is not None:
        output.begin(0, _EVERY_FILTER)
        output.keep(selection, logits)
        output.deliver(selection, 0, _First())
        output.launch(selection)
        output.drop()
