"""What requests do in; what the probes of streams and canaries of a host and of a device measure of it out.

Run where kernels are interpreted: see `interpreted.py`.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import Form, StreamPoint
from introspan.capture.part import Part
from introspan.capture.rows import Selection, Table, join
from introspan.capture.stream.canary import CanaryProbe
from introspan.capture.stream.device_canary import DeviceCanaryProbe
from introspan.capture.stream.device_probe import DeviceStreamProbe
from introspan.capture.stream.probe import StreamProbe
from introspan.capture.taps.streams import Taps
from introspan.observation import Observation, Request
from tests.waiting import DEVICE, waits_of

WIDTH, LAYERS, TAPPED, CAPACITY, ROWS_MAX = 64, 4, 3, 6, 64
LAYOUT = lay_out((1, 2), (2,), (), range(0), with_output=False)
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Course:
    """Events: ("begin", key, is_canary, hash), ("end", key), ("back", key, tokens), ("step", keys), ("flush",)."""

    events: list[tuple[Any, ...]]
    stride: int
    places: int
    dtype: torch.dtype
    seed: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """Rows that were computed together: values by the probe of the host and of the device; canaries by row."""

    host: np.ndarray
    device: np.ndarray
    host_canaries: dict[int, Observation]
    device_canaries: dict[int, Observation]


class _Last(nn.Module):
    """What a pipeline stage hands on to the next."""

    def forward(self, stream: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(tensors={"hidden_states": stream})


class _Tapped:
    """Layers that are tapped in one of the forms; traffic is measured at the first TAPPED of the points."""

    def __init__(self, dtype: torch.dtype, *, static: bool) -> None:
        self.layers = [*(nn.Identity() for _ in range(LAYERS)), _Last()]
        points = [StreamPoint(layer, self.layers[layer], Form.LAYER_INPUT) for layer in (1, 2, 3, 0)]
        points.append(StreamPoint(4, self.layers[4], Form.HANDED_ON))
        self.taps = Taps(points, ROWS_MAX, WIDTH, dtype, _CPU, Health(), TAPPED, static=static)

    def step(self, selection: Selection, streams: torch.Tensor, start: int) -> None:
        """streams: [LAYERS + 1, tokens, WIDTH]."""
        self.taps.select(torch.from_numpy(selection.token), start, with_output=False, everywhere=True)
        for layer, stream in zip(self.layers, streams, strict=True):
            layer(stream)
        self.taps.complete()
        self.taps.deselect()


def taken(parts: list[Part], values: np.ndarray) -> None:
    """As a recorder does when the numbers have come."""
    for part in parts:
        part.take(part.numbers.numpy().copy(), values)


def _streams(keys: list[str], positions: list[int], course: Course) -> torch.Tensor:
    """What a layer has of a token depends on its request, its position and the layer alone."""
    made = []
    for key, position in zip(keys, positions, strict=True):
        seed = course.seed + 1_000 * ord(key[0]) + position
        stream = torch.randn(LAYERS + 1, WIDTH, generator=torch.Generator().manual_seed(seed))
        if seed % 13 == 0:
            stream[1:, 5] = torch.nan
        made.append(stream)
    return torch.stack(made, dim=1).to(course.dtype)


class Run:
    """One course, seen by both."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._table = Table(CAPACITY, course.stride)
        self._host, self._device = (_Tapped(course.dtype, static=static) for static in (False, True))
        self.silent: list[list[int]] = []
        self._probes = (
            StreamProbe(LAYOUT, self._host.taps, CAPACITY, WIDTH),
            DeviceStreamProbe(
                LAYOUT, self._device.taps, CAPACITY, WIDTH, self.silent.append, places=course.places
            ),
        )
        self._canaries = (
            CanaryProbe(self._host.taps, WIDTH, lambda: 7),
            DeviceCanaryProbe(self._device.taps, WIDTH, lambda: 7),
        )
        self._position: dict[str, int] = {}
        self._waiting: list[Selection] = []
        self.flushed: list[Flushed] = []

    def begin(self, key: str, is_canary: bool, hash_: int) -> None:  # noqa: FBT001 - an event's
        self.end(key)
        slot = self._table.begin(
            Request(key, key, bytes(16), bytes(8), 0, "", 2, 0, 1.0, hash_ << 32, is_canary)
        )
        assert slot is not None
        self._position[key] = 0
        for probe in self._probes:
            probe.forget(slot)

    def end(self, key: str) -> None:
        if self._position.pop(key, None) is not None:
            self.flush()
            self._table.end(key)

    def back(self, key: str, tokens: int) -> None:
        slot = self._table.slot(key)
        if slot is not None:
            self._position[key] = max(self._position[key] - tokens, 0)
            self._table.rewind(slot, self._position[key] - 1)

    def step(self, keys: list[str]) -> None:
        keys = [key for key in keys if key in self._position]
        start = [self._position[key] for key in keys]
        if not keys:
            return
        if sum(map(len, self._waiting)) + len(keys) > ROWS_MAX:
            self.flush()
        selection = self._table.select(keys, np.array(start), np.ones(len(keys), np.int64))
        for key in keys:
            self._position[key] += 1
        if selection is None:
            return
        streams, waiting = _streams(keys, start, self._course), sum(map(len, self._waiting))
        for tapped in (self._host, self._device):
            tapped.step(selection, streams, waiting)
        self._waiting.append(selection)

    def flush(self) -> None:
        if not self._waiting:
            return
        selection, self._waiting = join(self._waiting), []
        values = [np.full((len(selection), len(LAYOUT.columns)), np.nan, np.float32) for _ in range(2)]
        found: tuple[dict[int, Observation], ...] = ({}, {})
        self._probes[0].measure(selection, values[0])
        parts = self._probes[1].launch(selection)
        if any(request.is_canary for request in selection.requests):
            self._canaries[0].measure(selection, found[0])
            parts += self._canaries[1].launch(selection, found[1])
        taken(parts, values[1])
        self.flushed.append(Flushed(*values, *found))


@torch.inference_mode()
def run(course: Course) -> list[Flushed]:
    """What both measured, batch by batch."""
    made = Run(course)
    for name, *arguments in course.events:
        getattr(made, name)(*arguments)
    made.flush()
    assert not made.silent
    return made.flushed


class _Unread:
    """Taps whose buffers are on a device that cannot be asked. A `Taps`, as far as probes on a device need one."""

    points = [StreamPoint(layer, nn.Identity(), Form.LAYER_INPUT) for layer in range(LAYERS + 1)]  # noqa: RUF012 - read

    def tapped(self, _: int, count: int) -> torch.Tensor:
        return torch.empty(count, WIDTH, dtype=torch.bfloat16, device=DEVICE)

    def kept(self, count: int, *, everywhere: bool = False) -> torch.Tensor:  # noqa: ARG002 - all of them
        return torch.empty(LAYERS + 1, count, WIDTH, dtype=torch.bfloat16, device=DEVICE).transpose(0, 1)

    def silent_steps(self) -> torch.Tensor:
        return torch.zeros(LAYERS + 1, dtype=torch.int64, device=DEVICE)


def waits() -> list[str]:
    """What waits where batches are launched whose bursts go on from one to the next."""
    taps: Any = _Unread()
    stream = DeviceStreamProbe(LAYOUT, taps, CAPACITY, WIDTH, lambda _: None, places=1)
    canary = DeviceCanaryProbe(taps, WIDTH)
    table = Table(CAPACITY, 1)
    for key in "abc":
        table.begin(Request(key, key, bytes(16), bytes(8), 0, "", 1, 0, 1.0, 0, key == "c"))

    def launch() -> None:
        for position in range(4):
            selection = table.select(list("abc"), np.full(3, position), np.ones(3, np.int64))
            assert selection is not None
            stream.launch(selection)
            canary.launch(selection, {})

    return waits_of(launch)


@torch.inference_mode()
def silenced(silent_at: int, tokens: int) -> tuple[list[list[int]], np.ndarray]:
    """Layers that were told of, and values by position of one request, each token of which is a batch of its own.

    In one the tap of layer 2 is silent, which is heard of when the batch behind it has been launched.
    """
    course = Course([], 1, CAPACITY, torch.float32, 100)
    tapped, table = _Tapped(course.dtype, static=True), Table(CAPACITY, course.stride)
    told: list[list[int]] = []
    probe = DeviceStreamProbe(LAYOUT, tapped.taps, CAPACITY, WIDTH, told.append)
    table.begin(Request("a", "a", bytes(16), bytes(8), 0, "", 1, 0, 1.0, 0))
    values = np.full((tokens, len(LAYOUT.columns)), np.nan, np.float32)
    under_way: list[tuple[list[Part], np.ndarray]] = []
    for position in range(tokens):
        selection = table.select(["a"], np.array([position]), np.ones(1, np.int64))
        assert selection is not None
        whole = tapped.layers.copy()
        tapped.layers[2] = nn.Identity() if position == silent_at else whole[2]
        tapped.step(selection, _streams(["a"], [position], course), 0)
        tapped.layers[:] = whole
        under_way.append((probe.launch(selection), values[position : position + 1]))
        while under_way and position != silent_at:
            taken(*under_way.pop(0))
    return told, values
