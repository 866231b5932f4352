"""A tapped model on a device that kernels compute on in; a recorder whose probes wait for it nowhere out.

Imports Triton: `assembly.py` imports this where kernels compute, only.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.attention.device_probe import DeviceAttentionProbe
from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.output.device_probe import DeviceOutputProbe
from introspan.capture.part import Part
from introspan.capture.rows import Selection, Table
from introspan.capture.runner.choice import ladder_of, steps_under_way
from introspan.capture.step.device_recorder import DeviceRecorder
from introspan.capture.step.landing import Landing
from introspan.capture.step.probes import Probes
from introspan.capture.step.ring import ResultsRing
from introspan.capture.stream.device_canary import DeviceCanaryProbe
from introspan.capture.stream.device_probe import DeviceStreamProbe
from introspan.capture.stream.reprefill import ReprefillProbe
from introspan.capture.tapped import Assembled, Engine, Tapped
from introspan.capture.warm_up import warm_up
from introspan.config import Settings
from introspan.observation import Observation
from introspan_wire.signals import PROJECTION_COMPONENTS

_TIMES_AS_FAST = 16
"""A GPU reads its memory at least so many times as fast as a core does: bytes are a measure of time here."""

_PLACES = 8
"""Batches under way at once: far more than a device is behind."""


class _Streams(DeviceStreamProbe):
    parts: list[Part]

    def measure(self, selection: Selection, values: NDArray[np.float32]) -> None:  # noqa: ARG002 - they come later
        self.parts += self.launch(selection)


class _Attention(DeviceAttentionProbe):
    parts: list[Part]

    def measure(self, values: NDArray[np.float32]) -> None:  # noqa: ARG002 - they come later
        self.parts += self.launch()


class _Output(DeviceOutputProbe):
    parts: list[Part]

    def not_finite(self) -> list[int]:
        return []  # asking would wait; the values say it

    def measure(self, selection: Selection, values: NDArray[np.float32]) -> None:  # noqa: ARG002 - they come later
        self.parts += self.launch(selection)


class _Canary(DeviceCanaryProbe):
    parts: list[Part]

    def measure(self, selection: Selection, found: dict[int, Observation]) -> None:
        self.parts += self.launch(selection, found)


def assemble(
    engine: Engine,
    settings: Settings,
    layout: Layout,
    tapped: Tapped,
    table: Table,
    capacity: int,
    reprefill: ReprefillProbe | None,
) -> Assembled:
    """What follows a runner of a device. capacity: that of the table."""
    health, parts = engine.health, list[Part]()
    ladder = ladder_of(engine.runner, engine.config, health, _tapped_signals(tapped), lambda: len(table) > 0)
    landing = Landing(
        ResultsRing(_PLACES, _numbers(layout, tapped), engine.device), _blocks(layout), health, ladder.fall
    )
    stream, canary = _of_streams(engine, settings, layout, tapped, capacity, landing)
    attention = _of_attention(settings, layout, tapped, health, landing)
    output = _of_output(engine, layout, tapped, capacity)
    for probe in (stream, canary, attention, output):
        if probe is not None:
            probe.parts = parts
    recorder = DeviceRecorder(
        layout,
        table,
        Probes(stream, attention, output, canary, reprefill),
        health,
        engine.sinks,
        tapped.rows_max,
        capacity,
        steps_under_way(engine.config),
        parts,
        landing,
        ladder,
    )

    def compile_all() -> None:
        logits = torch.zeros(1, engine.vocabulary, dtype=engine.dtype, device=engine.device)
        warm_up(stream, attention, output, logits)

    return Assembled(recorder, ladder, compile_all)


def _of_streams(
    engine: Engine, settings: Settings, layout: Layout, tapped: Tapped, capacity: int, landing: Landing
) -> tuple[_Streams | None, _Canary | None]:
    if tapped.streams is None:
        return None, None

    def silent(layers: list[int]) -> None:
        detail = f"the stream entering layers {layers} did not pass its tap exactly once in a step"
        landing.silent("residual", detail)

    stream = _Streams(layout, tapped.streams, capacity, engine.hidden_size, silent)
    has_canaries = settings.canary_key and settings.projections
    return stream, _Canary(tapped.streams, engine.hidden_size) if has_canaries else None


def _of_attention(
    settings: Settings, layout: Layout, tapped: Tapped, health: Health, landing: Landing
) -> _Attention | None:
    if not tapped.attention:
        return None

    def silent(layers: list[int]) -> None:
        landing.silent(
            "attention", f"attention of layers {layers} did not pass its tap exactly once in a step"
        )

    return _Attention(layout, tapped.attention, _TIMES_AS_FAST * settings.attention_bytes, health, silent)


def _of_output(engine: Engine, layout: Layout, tapped: Tapped, capacity: int) -> _Output | None:
    if not layout.measures_output:
        return None
    output = _Output(layout, capacity, tapped.rows_max, engine.health)
    # Now, before vLLM looks how much memory is left for keys and values.
    output.reserve(engine.vocabulary, engine.dtype, engine.device)
    return output


def _tapped_signals(tapped: Tapped) -> tuple[str, ...]:
    streams = ("residual",) if tapped.streams is not None else ()
    return (*streams, "attention") if tapped.attention else streams


def _blocks(layout: Layout) -> dict[str, list[slice]]:
    """The columns of what taps read, by the probe whose taps they are."""
    return {
        probe: [block for name, block in layout.blocks.items() if name.startswith(f"{probe}.")]
        for probe in ("residual", "attention")
    }


def _numbers(layout: Layout, tapped: Tapped) -> int:
    """The most numbers of a batch: values of its rows, or of canaries, and what probes say of themselves."""
    points = 0 if tapped.streams is None else len(tapped.streams.points)
    of_row = max(len(layout.columns), points * (PROJECTION_COMPONENTS + 2)) + len(layout.columns)
    return tapped.rows_max * of_row + points + 2 * len(tapped.attention) + 64
