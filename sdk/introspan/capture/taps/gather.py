"""Rows of a running forward in, chosen ones at their places in a buffer out, by operations which a graph can record.

Which row goes where is data: `slots[p]` is the row of the source that is put at place p of the buffer. A place stays as
it is where its slot is negative, or a row that the source lacks.
"""

from typing import Protocol

import torch


class Gather(Protocol):
    """What a tap does: source[slots[p]] to rows[p], output[checked[p]] to outputs[p], and fired grows by armed.

    source, output: [n, width]; slots, checked: int64 [places of each]; rows, outputs: [places of each, width]; armed,
    fired: int64 [1]. Neither shapes nor operations depend on what slots hold, nothing waits for the device, and no
    other memory is written. Rows of source and output may be further apart than they are wide.
    """

    def __call__(
        self,
        source: torch.Tensor,
        output: torch.Tensor,
        slots: torch.Tensor,
        checked: torch.Tensor,
        armed: torch.Tensor,
        rows: torch.Tensor,
        outputs: torch.Tensor,
        fired: torch.Tensor,
    ) -> None:
        """Copies the rows, and counts that it did."""


def gather(
    source: torch.Tensor,
    output: torch.Tensor,
    slots: torch.Tensor,
    checked: torch.Tensor,
    armed: torch.Tensor,
    rows: torch.Tensor,
    outputs: torch.Tensor,
    fired: torch.Tensor,
) -> None:
    """The form for any device, of torch's own operators."""
    _gather_rows(source, slots, rows)
    _gather_rows(output, checked, outputs)
    fired.add_(armed)


def _gather_rows(source: torch.Tensor, slots: torch.Tensor, into: torch.Tensor) -> None:
    last = source.shape[0] - 1
    is_taken = (slots >= 0) & (slots <= last)
    picked = source.index_select(0, slots.clamp(0, last))
    into.copy_(torch.where(is_taken.unsqueeze(1), picked, into))


_forms: dict[str, Gather] = {}


def register_gather(device_type: str, form: Gather) -> None:
    """Makes taps on devices of this type ("cuda") copy by this form. To be called before a model is tapped."""
    _forms[device_type] = form


def gather_on(device: torch.device) -> Gather:
    """The form registered for a device, or torch's own."""
    return _forms.get(device.type, gather)
