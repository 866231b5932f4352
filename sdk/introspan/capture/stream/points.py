"""What is to be measured, and which points of a model are tapped, in; which tap each measured layer is at out."""

from dataclasses import dataclass

import torch

from introspan.capture.columns import Layout
from introspan.capture.taps.streams import Taps
from introspan.observation import Disabled


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Taps before and after each layer of residual signals, and of each that is projected; int64 [layers], on the host.

    always: layers that are asked for in every step with rows.
    """

    at: torch.Tensor
    after: torch.Tensor
    projected: torch.Tensor
    always: frozenset[int]

    def silence(self, silent: list[int]) -> Disabled:
        """What is said where streams did not pass the taps of these layers."""
        detail = (
            f"the stream entering layers {self.named(silent)} did not pass its tap exactly once in a step"
        )
        return Disabled("residual", "tap_silent", detail)

    def named(self, silent: list[int]) -> list[int]:
        """Which of silent layers are named: those that only canaries are measured at, where no other is.

        They are asked for in no other step.
        """
        return [layer for layer in silent if layer in self.always] or silent


def points_of(layout: Layout, taps: Taps) -> Points:
    """Where the layers of a layout are tapped."""
    place = {point.layer: tap for tap, point in enumerate(taps.points)}
    at, after, projected = (
        torch.tensor([place[layer] for layer in layers], dtype=torch.int64)
        for layers in (
            layout.residual_layers,
            [layer + 1 for layer in layout.residual_layers],
            layout.projection_layers,
        )
    )
    always = {
        *layout.projection_layers,
        *layout.residual_layers,
        *(one + 1 for one in layout.residual_layers),
    }
    return Points(at, after, projected, frozenset(always))
