"""The kernels of streams, logits and gathered rows on the device in; whether they give what torch gives, out.

And whether results come over from the device without anybody waiting for them.
"""

import time
from functools import partial

import torch
from torch import Tensor

from bench.gpu.checks.outcome import Check, outcomes, prepare, same, unwaited
from bench.gpu.scale import Scale
from introspan.capture.output.sampler import Sampling, greedy_mismatch, pit
from introspan.capture.output.vocabulary import Vocabulary
from introspan.capture.step.ring import ResultsRing
from introspan.capture.stream.projection import orthogonal_map, project
from introspan.capture.stream.residual import curvature, direction, layer_statistics, step
from introspan.capture.taps.gather import gather

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_WIDTHS = {True: (33, 576), False: (33, 576, 4096, 8192)}
_VOCABULARIES = {True: (700, 2500), False: (700, 2500, 128_256)}
_ROWS, _TAPS = 5, 4
_ARRIVES_SECONDS = 10.0

# Temperature, top_k, top_p and min_p of requests; the last two are greedy.
_ASKED = (
    (1.0, 0.0, 1.0, 0.0),
    (0.7, 0.0, 0.9, 0.0),
    (1.0, 40.0, 1.0, 0.0),
    (1.3, 20.0, 0.8, 0.02),
    (0.0, 0.0, 1.0, 0.0),
    (0.0, 0.0, 1.0, 0.0),
)


def run(scale: Scale) -> dict[str, str]:
    """How each kernel came out with each dtype."""
    device = prepare(scale)
    checks = dict[str, Check]()
    for dtype in _DTYPES:
        name = str(dtype).removeprefix("torch.")
        for width in _WIDTHS[scale.is_rehearsal]:
            checks[f"streams {name} {width}"] = partial(_streams, dtype, width, device)
            checks[f"projection {name} {width}"] = partial(_projection, dtype, width, device)
            checks[f"gathered rows {name} {width}"] = partial(_gathered, dtype, width, device)
        for size in _VOCABULARIES[scale.is_rehearsal]:
            checks[f"logits {name} {size}"] = partial(_logits, dtype, size, device)
            checks[f"draws {name} {size}"] = partial(_draws, dtype, size, device)
    checks["results come over"] = partial(_results, device)
    return outcomes(checks)


def _drawn(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def _rows(dtype: torch.dtype, width: int) -> Tensor:
    """[rows, taps, width], as taps have them: each tap's rows in one piece."""
    return _drawn((_TAPS, _ROWS, width), dtype).transpose(0, 1)


def _streams(dtype: torch.dtype, width: int, device: torch.device) -> None:
    from introspan.capture.kernels.stream import Earlier, stream_statistics

    h, kept = _rows(dtype, width), _drawn((2, _TAPS - 1, width), dtype)
    at = torch.arange(_TAPS - 1)
    # Of this batch, of rows that were kept, and none.
    last, before_last = torch.tensor([-1, 0, 5, 6, 3]), torch.tensor([-1, -1, 6, -1, 5])
    everywhere = direction(h)
    layers = layer_statistics(everywhere.select(at), everywhere.select(at + 1))
    unit = everywhere.select(at).unit
    bank = torch.cat([unit, direction(kept).unit])
    later, earlier = step(bank[last], unit), step(bank[before_last], bank[last])
    velocity = later.length.masked_fill((last < 0).unsqueeze(1), torch.nan)
    bent = curvature(earlier, later).masked_fill(((last < 0) | (before_last < 0)).unsqueeze(1), torch.nan)
    there = Earlier(*(each.to(device) for each in (last, before_last, kept)))
    given = _there(h, device), at.to(device), (at + 1).to(device), there
    stream_statistics(*given)  # compiles
    with unwaited(device):
        found = stream_statistics(*given)
    for name in ("log_rms", "log_peak", "update_ratio", "nonfinite", "turn"):
        same(getattr(found.layers, name), getattr(layers, name), 1e-4, name)
    same(found.velocity, velocity, 2e-5, "velocity")
    same(found.curvature, bent, 2e-4, "curvature")


def _projection(dtype: torch.dtype, width: int, device: torch.device) -> None:
    from introspan.capture.kernels import projection as there

    h, at = _rows(dtype, width), torch.tensor([0, 2])
    map_ = torch.from_numpy(orthogonal_map(width))
    given = _there(h, device), at.to(device), map_.to(device)
    there.project(*given)  # compiles
    with unwaited(device):
        found = there.project(*given)
    same(found, project(direction(h).unit[:, at], map_), 1e-4, "projection")


def _gathered(dtype: torch.dtype, width: int, device: torch.device) -> None:
    from introspan.capture.kernels import rows as there

    sources = _drawn((6, width), dtype), _drawn((7, width), dtype)
    plan = torch.tensor([3, -1, 9, 0]), torch.tensor([6, -1]), torch.ones(1, dtype=torch.int64)
    kept = _drawn((4, width), dtype), _drawn((2, width), dtype), torch.zeros(1, dtype=torch.int64)
    given = [each.to(device) for each in (*sources, *plan)]
    found = [each.to(device, copy=True) for each in kept]
    there.gather(*given, *found)  # compiles; a second time puts the same there
    with unwaited(device):
        there.gather(*given, *found)
    for _ in range(2):
        gather(*sources, *plan, *kept)
    for name, mine, expected in zip(("rows", "outputs", "fired"), found, kept, strict=True):
        same(mine, expected, 0.0, name)


def _logits(dtype: torch.dtype, size: int, device: torch.device) -> None:
    from introspan.capture.kernels.vocabulary import vocabulary_statistics

    z, tokens = _drawn((3, size), dtype) * 3, torch.tensor([0, size - 1, 17])
    z[1, : size // 2] = -torch.inf
    given = z.to(device), tokens.to(device)
    vocabulary_statistics(*given)  # compiles
    with unwaited(device):
        found = vocabulary_statistics(*given)
    vocabulary = Vocabulary(size)
    for row, token in enumerate(tokens.tolist()):
        expected = vocabulary.statistics(z[row].float().numpy(), token)
        for name in ("entropy", "margin", "logprob", "nonfinite"):
            value = torch.tensor(float(getattr(expected, name)))
            same(getattr(found, name)[row], value, 2e-4, name)


def _draws(dtype: torch.dtype, size: int, device: torch.device) -> None:
    from introspan.capture.kernels.sampler import draws

    z = _drawn((len(_ASKED), size), dtype) * 3
    tokens = z.argmax(dim=1)
    tokens[-1] = (tokens[-1] + 1) % size  # which a greedy request was not to be given
    asked = torch.tensor([[*each, 0.37] for each in _ASKED], dtype=torch.float64).T.contiguous()
    given = z.to(device), tokens.to(device), asked.to(device)
    draws(*given)  # compiles
    with unwaited(device):
        found = draws(*given)
    vocabulary = Vocabulary(size)
    for row, (temperature, top_k, top_p, min_p) in enumerate(_ASKED):
        token = int(tokens[row])
        logits = z[row].float().numpy()
        vocabulary.statistics(logits, token)
        if temperature == 0.0:
            expected = torch.tensor([torch.nan, greedy_mismatch(logits, token)])
        else:
            sampling = Sampling(temperature, int(top_k), top_p, min_p, reproducible=True)
            u = pit(vocabulary.weights(temperature), token, sampling, 0.37)
            expected = torch.tensor([u, torch.nan])
        same(found[:, row], expected, 1e-4, f"request {row}")


def _results(device: torch.device) -> None:
    """Through pinned memory, with events of the device itself."""
    ring = ResultsRing[int](2, 1000, device)
    with unwaited(device):
        numbers = torch.arange(1000, device=device, dtype=torch.float32)
        for number in range(3):
            lost = ring.put(number, numbers * (number + 1))
    if lost != 0:
        raise AssertionError(f"of three results in two places the first is lost, got {lost}")
    until, arrived = time.monotonic() + _ARRIVES_SECONDS, list[tuple[int, Tensor]]()
    while len(arrived) < 2 and time.monotonic() < until:
        arrived += ring.take()
    if [tag for tag, _ in arrived] != [1, 2]:
        raise AssertionError(
            f"results 1 and 2 did not come within {_ARRIVES_SECONDS:g} s, but {len(arrived)}"
        )
    same(arrived[-1][1], torch.arange(1000.0) * 3, 0.0, "results")


def _there(h: Tensor, device: torch.device) -> Tensor:
    """The same on a device, each tap's rows in one piece as before."""
    return h.transpose(0, 1).to(device).transpose(0, 1)
