"""What is to be measured in; the columns of a measured row out, with where each signal's block of them begins."""

from dataclasses import dataclass

from introspan.observation import RowColumn
from introspan_wire.signals import PROJECTION_COMPONENTS

LAYER_SIGNALS = (
    "residual.log_rms",
    "residual.log_peak",
    "residual.turn",
    "residual.update_ratio",
    "residual.nonfinite",
)
STEP_SIGNALS = ("residual.velocity", "residual.curvature")
ATTENTION_SIGNALS = ("attention.entropy", "attention.sink_mass", "attention.recent_mass")
OUTPUT_SIGNALS = ("output.entropy", "output.margin", "output.logprob", "output.nonfinite")
TOKEN_SIGNALS = ("output.repetition", "sampler.pit", "sampler.greedy_mismatch")


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of a row, and the slice that each signal's block takes of them.

    Blocks of residual signals run over residual_layers, of projections over projection_layers × 32 components,
    of attention signals over attention_layers × heads.
    """

    residual_layers: tuple[int, ...]
    projection_layers: tuple[int, ...]
    attention_layers: tuple[int, ...]
    columns: tuple[RowColumn, ...]
    blocks: dict[str, slice]

    @property
    def measures_output(self) -> bool:
        """Whether there is room for what is drawn, and from what."""
        block = self.blocks["output.entropy"]
        return bool(block.stop > block.start)


def lay_out(
    residual_layers: tuple[int, ...],
    projection_layers: tuple[int, ...],
    attention_layers: tuple[int, ...],
    heads: range,
    *,
    with_output: bool = True,
) -> Layout:
    """The layout of rows that measure these layers; heads are indices over the whole model.

    with_output: also what is drawn and from what; blocks of what is not measured are empty.
    """
    columns: list[RowColumn] = []
    blocks: dict[str, slice] = {}

    def block(signal: str, axes: list[RowColumn]) -> None:
        blocks[signal] = slice(len(columns), len(columns) + len(axes))
        columns.extend(axes)

    for signal in LAYER_SIGNALS + STEP_SIGNALS:
        block(signal, [RowColumn(signal, layer) for layer in residual_layers])
    name = "residual.projection"
    block(
        name,
        [
            RowColumn(name, layer, component=component)
            for layer in projection_layers
            for component in range(PROJECTION_COMPONENTS)
        ],
    )
    for signal in ATTENTION_SIGNALS:
        block(signal, [RowColumn(signal, layer, head) for layer in attention_layers for head in heads])
    for signal in OUTPUT_SIGNALS + TOKEN_SIGNALS:
        block(signal, [RowColumn(signal)] if with_output else [])
    return Layout(residual_layers, projection_layers, attention_layers, tuple(columns), blocks)
