"""Steps of requests in; what the probes of attention of a host and of a device measure of them out.

Run where kernels are interpreted: see `interpreted.py`.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from introspan.capture.attention.device_probe import DeviceAttentionProbe
from introspan.capture.attention.probe import AttentionProbe
from introspan.capture.attention.statistics import Scoring, recompute_output
from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import AttentionPoint
from introspan.capture.rows import Selection
from introspan.capture.taps.attention import tap_attention
from introspan.capture.taps.block_table import BlockTable
from introspan.observation import Request
from tests.strided import LAYOUTS, strided

HEADS, KV_HEADS, D, BLOCK, BLOCKS, ROWS_MAX = 4, 2, 32, 16, 4, 16
_CPU = torch.device("cpu")
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"}


@dataclass(frozen=True, slots=True)
class Layer:
    """How a layer scores, and in which group's table its blocks are."""

    form: Scoring = field(default_factory=lambda: Scoring(0.25))
    group: int = 0


@dataclass(frozen=True, slots=True)
class Course:
    """flushes: steps that are computed together, each the batch of requests and how many keys each comes to have.

    divided: blocks of the cache that an id of the engine's tables stands for; says: keys that the engine says it stands
    for, None for the truth. spoilt, silent: of which layer the keys
    are others than the backend's from a flush on, or attention passes no tap. seen: rows before, checked like any.
    """

    flushes: list[list[tuple[list[int], list[int]]]]
    layers: list[Layer] = field(default_factory=lambda: [Layer()])
    layout: str = "LBNHC"
    dtype: str = "float32"
    divided: int = 1
    says: int | None = None
    quantises: bool = False
    spoilt: tuple[int, int] | None = None
    silent: tuple[int, int] | None = None
    takes_late: bool = False
    budget_bytes: int = 2**24
    seen: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of each flush, by the host and by the device; what was said while they were taken."""

    host: list[np.ndarray]
    device: list[np.ndarray]
    disabled: list[tuple[str, str, str]]
    silent: list[list[int]]
    skipped: int


class Waiting(TorchDispatchMode):
    """Fails where something would wait for a device, or where a value decides a shape."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in _WAITS, f"{name} waits for the device"
        if name in {"index", "index_put", "index_put_"}:
            masks = [each for each in args[1] if each is not None and each.dtype in {torch.bool, torch.uint8}]
            assert not masks, "a mask decides a shape"
        return func(*args, **(kwargs or {}))


class Run:
    """One course, of which both probes see the same queries, keys and outputs."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.generator = torch.Generator().manual_seed(course.seed)
        self.requests = 1 + max(key for flush in course.flushes for batch, _ in flush for key in batch)
        self.scale = 0.5 if course.dtype.startswith("fp8") else 1.0
        self.value_scale = 3.0 if course.dtype.startswith("fp8") else 1.0
        self.is_exact = course.dtype == "float32"
        groups = 1 + max(layer.group for layer in course.layers)
        # Rows of the engine's tables, which it writes over in each step.
        self.managed = [self._managed() for _ in range(groups)]
        self.tables = [
            torch.zeros(ROWS_MAX, BLOCKS // course.divided, dtype=torch.int32) for _ in range(groups)
        ]
        self.keys: list[tuple[Tensor, Tensor]] = []
        made = [self._made(at, layer) for at, layer in enumerate(course.layers)]
        self.layout = lay_out((), (), tuple(range(len(made))), range(HEADS), with_output=False)
        self.health, self.host_health, self.told = Health(), Health(), list[list[int]]()
        self.points, host = [point for point, _ in made], [point for _, point in made]
        dtype = torch.float32 if self.is_exact else torch.bfloat16
        self.taps = tap_attention(self.points, ROWS_MAX, dtype, _CPU, self.health, static=True)
        self.host_taps = tap_attention(host, ROWS_MAX, torch.float32, _CPU, self.host_health, static=False)
        self.device = DeviceAttentionProbe(
            self.layout, self.taps, course.budget_bytes, self.health, self.told.append
        )
        self.device._rows_seen = self.device._checked = course.seen
        self.host = AttentionProbe(self.layout, self.host_taps, course.budget_bytes, self.host_health)

    def _managed(self) -> Tensor:
        count = self.requests * BLOCKS // self.course.divided
        return torch.randperm(count, generator=self.generator).view(self.requests, -1).int()

    def _made(self, at: int, layer: Layer) -> tuple[AttentionPoint, AttentionPoint]:
        course = self.course
        made = strided(
            course.layout,
            course.dtype,
            [BLOCKS * BLOCK] * self.requests,
            KV_HEADS,
            D,
            BLOCK,
            course.seed + at,
        )
        inside = torch.arange(course.divided)
        ids = (self.managed[layer.group].long().unsqueeze(2) * course.divided + inside).flatten()
        axis = 1 if made.cache.dim() == 5 and made.cache.shape[0] == 2 else 0
        moved = made.cache.index_select(axis, made.table.flatten().long())
        made.cache.index_copy_(axis, ids, moved)
        k, v = made.k * self.scale, made.v * self.value_scale
        self.keys.append((k, v))
        form = layer.form
        said = {
            "num_heads": HEADS,
            "num_kv_heads": KV_HEADS,
            "head_size": D,
            "scale": form.scale,
            "alibi_slopes": form.alibi_slopes,
            "sinks": form.sinks,
            "forward": lambda *_, output: output,
        }
        name = LAYOUTS[course.layout][0]
        window = (-1, -1) if form.window is None else (form.window - 1, 0)
        softcap = form.softcap or (None if name == "FlashInferImpl" else 0)
        own = {"sliding_window": window, "logits_soft_cap": softcap}
        own["kv_cache_dtype"] = {"fp8_e4m3": "fp8"}.get(course.dtype, course.dtype)
        impl = type(name, (), {})()
        impl.__dict__.update(said | own)
        scales = {"_k_scale": self.scale, "_v_scale": self.value_scale, "_q_scale": 0.25}
        module = SimpleNamespace(
            impl=impl,
            kv_cache=made.cache,
            layer_name=f"layer {at}",
            query_quant=SimpleNamespace() if course.quantises else None,
            **{scale: torch.tensor(number) for scale, number in scales.items()},
        )
        of_host = {"sliding_window": -1 if form.window is None else form.window}
        of_host["logits_soft_cap"] = form.softcap or 0.0
        host = SimpleNamespace(
            impl=SimpleNamespace(**said | of_host),
            kv_cache=_vec(k, v),
            isa="vec",
            layer_name=f"layer {at}",
        )
        return AttentionPoint(at, module), AttentionPoint(at, host)

    def step(self, number: int, at: int, batch: list[int], lengths: list[int]) -> None:
        """One forward; at: rows that wait before it."""
        selection = _selection(batch, lengths)
        self.device.select(selection)
        self.host.select(selection)
        for table, managed in zip(self.tables, self.managed, strict=True):
            table[: len(batch)] = managed[batch]
        for layer, (tap, host_tap) in enumerate(zip(self.taps, self.host_taps, strict=True)):
            q, output = self._attend(layer, batch, lengths)
            given, outputs = q.to(tap.q.dtype), output.to(tap.q.dtype)
            if self.course.silent is None or self.course.silent != (layer, number):
                tap.point.module.impl.forward(None, given.flatten(1), None, None, None, None, output=outputs)
            factor = 0.25 if self.course.quantises else 1.0
            own = SimpleNamespace(block_table=torch.arange(self.requests * BLOCKS).view(-1, BLOCKS)[batch])
            seen = (given.float() * factor).flatten(1)
            host_tap.point.module.impl.forward(None, seen, None, None, None, own, output=output)
        self.device.take_block_tables(self._table_of)
        for table in self.tables:  # the next step's
            table.fill_(2**20)
        if self.health.is_on("attention"):
            with Waiting():
                self.device.take_in(selection, at)
        self.host.take_in(selection, at)
        self.device.deselect()
        self.host.deselect()

    def _table_of(self, name: str) -> BlockTable:
        layer = self.course.layers[int(name.split()[1])]
        return BlockTable(self.tables[layer.group], self.course.says or BLOCK * self.course.divided)

    def _attend(self, layer: int, batch: list[int], lengths: list[int]) -> tuple[Tensor, Tensor]:
        """Queries, and what a backend makes of them."""
        q = torch.randn(len(batch), HEADS, D, generator=self.generator)
        if self.course.quantises:
            q = (q * 4).to(torch.float8_e4m3fn)
        if not self.is_exact:
            q = q.to(torch.bfloat16)
        k, v = (each[batch] for each in self.keys[layer])
        factor = 0.25 if self.course.quantises else 1.0
        form, some = self.course.layers[layer].form, torch.tensor(lengths)
        return q.float(), recompute_output(q.float() * factor, k, v, some, form).view(-1, HEADS, D)

    def flush(self, at: int, flush: int) -> tuple[np.ndarray, Any]:
        """What the host measures, and what the device has begun."""
        host = np.full((at, len(self.layout.columns)), np.nan, np.float32)
        self.host.measure(host)
        self.host.drop()
        if self.course.spoilt is not None and flush == self.course.spoilt[1]:
            self.points[self.course.spoilt[0]].module.kv_cache.fill_(1)
        with Waiting():
            parts = self.device.launch() if self.health.is_on("attention") else []
        self.device.drop()
        return host, parts


def run(course: Course) -> Measured:
    """The whole course; values are taken flush by flush, or when all were launched."""
    of, hosts, devices, begun = Run(course), [], [], []
    for number, flush in enumerate(course.flushes):
        at = 0
        for batch, lengths in flush:
            of.step(number, at, batch, lengths)
            at += len(batch)
        host, parts = of.flush(at, number)
        hosts.append(host)
        devices.append(np.full_like(host, np.nan))
        begun.append((parts, devices[-1]))
        if not course.takes_late:
            _taken(begun)
    _taken(begun)
    disabled = [(each.signal, each.reason, each.detail) for each in of.health.disabled.values()]
    return Measured(hosts, devices, disabled, of.told, of.health.attention_rows_skipped)


def _taken(begun: list[Any]) -> None:
    for parts, values in begun:
        for part in parts:
            assert part.numbers.dtype == torch.float32
            part.take(part.numbers.numpy().copy(), values)
    begun.clear()


def _vec(k: Tensor, v: Tensor) -> Tensor:
    """A cache of vLLM's CPU backend, in which the blocks of requests follow each other."""
    cache = torch.zeros(k.shape[0] * BLOCKS, KV_HEADS, BLOCK, 2 * D)
    halves = cache.view(*cache.shape[:2], 2, BLOCK * D)
    k, v = (each.unflatten(2, (BLOCKS, BLOCK)).transpose(1, 2).flatten(0, 1) for each in (k, v))
    halves[:, :, 0], halves[:, :, 1] = k.transpose(-1, -2).flatten(2), v.flatten(2)
    return cache


def _selection(batch: list[int], lengths: list[int]) -> Selection:
    count = len(batch)
    return Selection(
        requests=[Request(str(i), "", b"", b"", 0, "", 1, 0, 1.0, i) for i in batch],
        slot=np.array(batch),
        token=np.arange(count),
        batch=np.arange(count),
        position=np.array(lengths) - 1,
        burst=np.zeros(count, np.int64),
        attention=np.ones(count, np.bool_),
    )
