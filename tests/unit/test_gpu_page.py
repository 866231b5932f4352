"""What docs/gpu.md says of memory and of the steps of the benchmark is what the code takes, and has."""

import gc
import re
from pathlib import Path

import pytest

from bench.gpu.steps import STEPS
from introspan.capture import on_device
from introspan.capture.columns import lay_out
from introspan.capture.rows import Table
from introspan.capture.tapped import MOST_DEVICE_BYTES, tap
from introspan.capture.taps import static_rows
from introspan.config import load
from tests.unit import test_device_memory as counted

_PAGE = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
_EVERY_LAYER = {"INTROSPAN_LAYERS": "all", "INTROSPAN_ATTENTION_LAYERS": "all"}


def _taken(requests: int, **settings: str) -> tuple[int, float]:
    """Rows that fit, and the MiB of all that is made on the device."""
    chosen = load({"INTROSPAN_ENDPOINT": "127.0.0.1:1"} | settings)
    engine, anatomy = counted._engine(requests), counted._anatomy()
    residual = chosen.layers.resolve(counted.LAYERS)
    projected = residual if "INTROSPAN_LAYERS" in settings else (counted.LAYERS // 2, counted.LAYERS - 2)
    attention = chosen.attention_layers.resolve(counted.LAYERS)
    layout = lay_out(residual, projected, attention, range(counted.HEADS))
    gc.collect()
    before = counted._bytes()
    tapped = tap(engine, chosen, anatomy, layout, within=MOST_DEVICE_BYTES)
    made = on_device.assemble(engine, chosen, layout, tapped, Table(2 * requests, 16), 2 * requests, None)
    of_host = made.recorder._landing._ring._memory.nbytes  # pinned there
    taken = counted._bytes() - before - of_host
    return tapped.rows_max, taken / 2**20


@pytest.mark.thorough
@pytest.mark.parametrize("requests", [128, 1_024])
@pytest.mark.parametrize(
    ("row", "settings"),
    [
        ("at defaults", {}),
        ("with a canary's secret", {"INTROSPAN_CANARY_KEY": "of the canaries, long enough"}),
        ("`INTROSPAN_LAYERS=all`", _EVERY_LAYER),
    ],
)
def test_the_table_of_memory_has_what_is_taken(monkeypatch, requests, row, settings):
    monkeypatch.setattr(static_rows, "_ON_HOST", frozenset())  # buffers as on a device
    said = re.search(rf"^\| {re.escape(row)}[^|]*\| (\d+) \| ([\d.]+) \|$", _PAGE, re.MULTILINE)
    assert said, row
    rows, mib = _taken(requests, **settings)
    assert rows == int(said[1])
    assert mib == pytest.approx(float(said[2]), abs=0.06)


def test_the_table_of_steps_names_every_step():
    named = set(re.findall(r"^\| `([a-z]+)(?:-…)?` \|", _PAGE, re.MULTILINE))
    assert named == {name.partition("-")[0] for name in STEPS}
