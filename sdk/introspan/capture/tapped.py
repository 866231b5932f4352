"""An engine's model and what of it is to be measured in; its taps, with buffers within a bound, out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.model.anatomy import Anatomy, AttentionPoint
from introspan.capture.model.ranks import Ranks
from introspan.capture.runner.ladder import Ladder
from introspan.capture.step.recorder import TOGETHER_ROWS, Recorder
from introspan.capture.step.sinks import Sinks
from introspan.capture.taps.attention import AttentionTap, tap_attention
from introspan.capture.taps.streams import Taps
from introspan.config import Settings

MOST_DEVICE_BYTES = 44 << 20
"""Of a device's memory, for rows that wait there; those kept for steps between tokens take up to 16 MiB beside it."""

_FEWEST_ROWS = 8


# Any: vLLM's runner and configuration.
@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """Whose model is measured, and where what is measured goes."""

    runner: Any
    config: Any
    ranks: Ranks
    health: Health
    sinks: Sinks

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.runner.device)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return int(self.config.model_config.get_hidden_size())

    @property
    def vocabulary(self) -> int:
        """Width of the raw logits."""
        return int(self.config.model_config.get_vocab_size())

    @property
    def dtype(self) -> torch.dtype:
        """Of the residual stream."""
        dtype: torch.dtype = self.config.model_config.dtype
        return dtype


@dataclass(frozen=True, slots=True, eq=False)
class Tapped:
    """What the forward is tapped for. rows_max: rows that the buffers hold."""

    streams: Taps | None
    attention: list[AttentionTap]
    rows_max: int


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """What follows an engine's runner.

    ladder: of an engine whose forwards may be replayed from graphs; None where Python runs each. warm_up: to be called
    when the engine has warmed itself up.
    """

    recorder: Recorder
    ladder: Ladder | None = None
    warm_up: Callable[[], None] | None = None


def tap(engine: Engine, settings: Settings, anatomy: Anatomy, layout: Layout, within: int | None) -> Tapped:
    """Taps a model for what the layout holds.

    within: bytes that buffers may take, None for as many as the largest batch needs.
    """
    always = sorted(
        {*layout.residual_layers, *(layer + 1 for layer in layout.residual_layers), *layout.projection_layers}
    )
    # A canary is measured at every layer; what only it needs is idle in all other steps.
    others = sorted(anatomy.streams.keys() - set(always)) if settings.canary_key and always else []
    points = [anatomy.streams[layer] for layer in (*always, *others)]
    chosen = [anatomy.attention[layer] for layer in layout.attention_layers]
    rows_max = int(engine.config.scheduler_config.max_num_seqs) + TOGETHER_ROWS
    if within is not None:
        rows_max = min(
            rows_max, max(within // _bytes_a_row(engine, len(points), chosen, layout), _FEWEST_ROWS)
        )
    streams, hidden_size, dtype, device = None, engine.hidden_size, engine.dtype, engine.device
    if always:
        streams = Taps(points, rows_max, hidden_size, dtype, device, engine.health, always=len(always))
    attention = tap_attention(chosen, rows_max, dtype, device, engine.health) if chosen else []
    return Tapped(streams, attention, rows_max)


def _bytes_a_row(engine: Engine, points: int, attention: list[AttentionPoint], layout: Layout) -> int:
    """What one row that waits takes: streams, queries and what checks them, and raw logits."""
    vocabulary = engine.vocabulary if layout.measures_output else 0
    queries = sum(2 * point.module.impl.num_heads * point.module.impl.head_size for point in attention)
    numbers: int = points * engine.hidden_size + queries + vocabulary
    return numbers * engine.dtype.itemsize
