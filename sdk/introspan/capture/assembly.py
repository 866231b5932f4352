"""A model that was looked at and what of it is to be measured in; a recorder with all its probes out."""

from introspan.capture.attention.probe import AttentionProbe
from introspan.capture.columns import Layout
from introspan.capture.kernels.choice import computes_on, register_on
from introspan.capture.model.anatomy import Anatomy
from introspan.capture.output.probe import OutputProbe
from introspan.capture.rows import Table
from introspan.capture.runner.choice import limits, recorder_of
from introspan.capture.step.probes import Probes
from introspan.capture.stream.canary import CanaryProbe
from introspan.capture.stream.probe import StreamProbe
from introspan.capture.stream.reprefill import ReprefillProbe
from introspan.capture.tapped import MOST_DEVICE_BYTES, Assembled, Engine, Tapped, tap
from introspan.config import Settings
from introspan.observation import Disabled

_OF_OUTPUT = ("output", "sampler")


def assemble(
    engine: Engine, settings: Settings, anatomy: Anatomy, layout: Layout, capacity: int
) -> Assembled:
    """Taps the model for what the layout holds. capacity: requests that are followed at once."""
    register_on(engine.device)
    computes = computes_on(engine.device)
    tapped = tap(engine, settings, anatomy, layout, within=MOST_DEVICE_BYTES if computes else None)
    for entry in limits(engine.runner, engine.config):
        if layout.measures_output or entry.signal not in _OF_OUTPUT:
            engine.health.refuse(entry)
    reprefill = _reprefill(engine, settings, layout)
    table = Table(capacity, settings.token_stride)
    if computes:
        from introspan.capture import on_device  # noqa: PLC0415 - imports Triton

        return on_device.assemble(engine, settings, layout, tapped, table, capacity, reprefill)
    probes = _probes(engine, settings, layout, capacity, tapped, reprefill)
    recorder = recorder_of(
        engine.runner,
        engine.config,
        layout,
        table,
        capacity,
        probes,
        engine.health,
        engine.sinks,
        tapped.rows_max,
    )
    return Assembled(recorder)


def _probes(
    engine: Engine,
    settings: Settings,
    layout: Layout,
    capacity: int,
    tapped: Tapped,
    reprefill: ReprefillProbe | None,
) -> Probes:
    stream = attention = output = canary = None
    if tapped.streams is not None:
        stream = StreamProbe(layout, tapped.streams, capacity, engine.hidden_size)
        if settings.canary_key and settings.projections:
            canary = CanaryProbe(tapped.streams, engine.hidden_size)
    if tapped.attention:
        attention = AttentionProbe(layout, tapped.attention, settings.attention_bytes, engine.health)
    if layout.measures_output:
        output = OutputProbe(layout, capacity, tapped.rows_max, engine.health)
    return Probes(stream, attention, output, canary, reprefill)


def _reprefill(engine: Engine, settings: Settings, layout: Layout) -> ReprefillProbe | None:
    if not settings.reprefill_rate or (engine.ranks.are_several and not layout.projection_layers):
        return None  # another worker compares
    if not layout.projection_layers:
        why = "the model's residual stream cannot be read where it would be compared"
        engine.health.refuse(Disabled("consistency", "no_projections", why))
        return None
    return ReprefillProbe(layout, settings.reprefill_rate, engine.health.dropped_requests)
