"""Attention statistics against weights written out in float64."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from introspan.capture.attention.kv_layout import cpu_layout
from introspan.capture.attention.statistics import AttentionStatistics, PagedKeys, Scoring, paged_statistics
from tests.paged import BLOCK, FORMS, HEADS, KV_HEADS, Paged, paged


def _scores(q: Tensor, k: Tensor, n: int, form: Scoring) -> Tensor:
    """Scores of one row and head in float64, before any mask. q: [d]; k: [keys, d]."""
    s = form.scale * (k[:n].double() @ q.double())
    if form.softcap is not None:
        s = form.softcap * torch.tanh(s / form.softcap)
    return s


def naive(q: Tensor, k: Tensor, lengths: Tensor, form: Scoring) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy, sink and recent mass from materialised weights, one row and one head at a time."""
    rows, heads = q.shape[:2]
    result = torch.zeros(3, rows, heads, dtype=torch.float64)
    for row in range(rows):
        n = int(lengths[row])
        for head in range(heads):
            s = _scores(q[row, head], k[row, head * k.shape[1] // heads], n, form)
            if form.alibi_slopes is not None:
                s = s + form.alibi_slopes[head].double() * (torch.arange(n) - (n - 1))
            if form.window is not None and form.window < n:
                s[: n - form.window] = -math.inf
            if form.sinks is not None:
                s = torch.cat([s, form.sinks[head].double().view(1)])
            p = s.softmax(0)
            result[0, row, head] = -sum(x * math.log(x) for x in p.tolist() if x > 0)
            inside = form.window is None or n <= form.window
            result[1, row, head] = p[0] if inside else math.nan
            result[2, row, head] = p[:n][-64:].sum()
    return result[0], result[1], result[2]


def _measured(q: Tensor, made: Paged, lengths: Tensor, form: Scoring, **how: int) -> AttentionStatistics:
    """Statistics [1, rows, heads] of a row a request. q: [rows, heads, d]."""
    keys = PagedKeys([made.cache], made.table, cpu_layout("vec", made.cache))
    return paged_statistics([q], keys, np.arange(len(q)), lengths.numpy(), form, **how)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_statistics_are_those_of_materialised_weights(form):
    lengths = torch.tensor([1, 33, 64, 200])
    made = paged(lengths.tolist(), 32, torch.float32, "vec")
    q = torch.randn(4, HEADS, 32, generator=torch.Generator().manual_seed(1)) * 2
    expected = naive(q, made.k, lengths, form)
    found = _measured(q, made, lengths, form)
    for name, value in zip(("entropy", "sink_mass", "recent_mass"), expected, strict=True):
        of_rows = getattr(found, name)[0].double()
        torch.testing.assert_close(of_rows, value, atol=2e-5, rtol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_chunk_size_does_not_matter(form):
    lengths = torch.tensor([190, 5])
    made = paged(lengths.tolist(), 32, torch.float32, "vec")
    q = torch.randn(2, HEADS, 32, generator=torch.Generator().manual_seed(2))
    whole = _measured(q, made, lengths, form, blocks_at_once=1000)
    for blocks in (1, 2, 5):
        part = _measured(q, made, lengths, form, blocks_at_once=blocks)
        torch.testing.assert_close(part.entropy, whole.entropy, atol=1e-5, rtol=0)
        torch.testing.assert_close(part.recent_mass, whole.recent_mass, atol=1e-6, rtol=0)
        torch.testing.assert_close(part.sink_mass, whole.sink_mass, atol=1e-6, rtol=0, equal_nan=True)


def test_layers_are_measured_together_as_one_by_one():
    lengths = torch.tensor([100, 40])
    first = paged(lengths.tolist(), 32, torch.float32, "vec")
    layers = [first] + [replace(first, cache=torch.randn_like(first.cache)) for _ in range(2)]
    q = torch.randn(3, 2, HEADS, 32, generator=torch.Generator().manual_seed(3))
    sinks = torch.randn(3, 1, HEADS, generator=torch.Generator().manual_seed(4))
    keys = PagedKeys([layer.cache for layer in layers], first.table, cpu_layout("vec", first.cache))
    together = paged_statistics(q, keys, np.arange(2), lengths.numpy(), Scoring(0.2, sinks=sinks))
    for i, layer in enumerate(layers):
        alone = _measured(q[i], layer, lengths, Scoring(0.2, sinks=sinks[i, 0]))
        torch.testing.assert_close(alone.entropy[0], together.entropy[i])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rows_of_a_request_are_measured_together_as_one_by_one(form):
    made = paged([200, 40, 130], 32, torch.float32, "vec")
    request = torch.tensor([2, 0, 1, 2, 0, 2])
    lengths = torch.tensor([64, 199, 40, 65, 200, 130])  # before, at and after where a block or window ends
    q = torch.randn(6, HEADS, 32, generator=torch.Generator().manual_seed(6))
    of_rows = Paged(made.cache, made.table[request], made.k, made.v)
    alone = _measured(q, of_rows, lengths, form)
    # An older row's table lacks the blocks that were added since.
    of_rows.table[0, 2:] = of_rows.table[1, 6:] = 0
    keys = PagedKeys([made.cache], of_rows.table, cpu_layout("vec", made.cache))
    together = paged_statistics([q], keys, request.numpy(), lengths.numpy(), form)
    for name in ("entropy", "sink_mass", "recent_mass"):
        found, expected = getattr(together, name), getattr(alone, name)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0, equal_nan=True, msg=name)


def test_blocks_before_the_window_are_never_read():
    lengths = torch.tensor([200, 40])
    made = paged(lengths.tolist(), 32, torch.float32, "vec")
    form = Scoring(0.2, window=50)
    q = torch.randn(2, HEADS, 32)
    before = _measured(q, made, lengths, form)
    made.cache[made.table[0, :4].long()] = math.nan  # keys 0–127; the window begins at 150
    after = _measured(q, made, lengths, form)
    torch.testing.assert_close(after.entropy, before.entropy, rtol=0, atol=0)


def test_non_finite_keys_spoil_their_own_row_and_head_only():
    lengths = torch.tensor([40, 40])
    made = paged([40, 40], 32, torch.float32, "vec")
    made.cache[made.table[0, 0], 1, 0, 3] = math.nan  # transposed: dimension 0 of key 3
    found = _measured(torch.randn(2, HEADS, 32), made, lengths, Scoring(0.2))
    spoilt = torch.zeros(1, 2, HEADS, dtype=torch.bool)
    spoilt[0, 0, HEADS // 2 :] = True
    assert torch.equal(found.entropy.isnan(), spoilt)
    assert torch.equal(found.recent_mass.isnan(), spoilt)


def test_a_single_key_has_no_entropy_to_speak_of_and_all_the_mass():
    made = paged([1], 32, torch.float32, "vec")
    found = _measured(torch.randn(1, HEADS, 32), made, torch.tensor([1]), Scoring(1.0))
    assert found.entropy.max() < 1e-30
    assert found.sink_mass.tolist() == [[[1.0] * HEADS]]
    assert found.recent_mass.tolist() == [[[1.0] * HEADS]]


def test_keys_that_no_row_has_reached_do_not_matter():
    lengths = torch.tensor([40, 33])
    made = paged([40, 40], 32, torch.float32, "vec")
    q = torch.randn(2, HEADS, 32)
    before = _measured(q, made, lengths, Scoring(0.2))
    keys = made.cache.view(len(made.cache), KV_HEADS, 2, 32, BLOCK)[:, :, 0]
    keys[made.table[:, 1].long(), :, :, 8:] = math.nan  # keys 40–63, which belonged to another request
    keys[made.table[1, 1].long(), :, :, 1:8] = math.nan
    after = _measured(q, made, lengths, Scoring(0.2))
    torch.testing.assert_close(after.entropy, before.entropy, rtol=0, atol=0)


class _LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that any operation made, views of what is there already not counted."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self._given = given.untyped_storage().data_ptr()
        self.byte_count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() != self._given:
            self.byte_count = max(self.byte_count, result.untyped_storage().nbytes())
        return result


def test_memory_does_not_grow_with_the_number_of_keys():
    largest = []
    for n in (1_000, 8_000):
        cache = torch.randn(-(-n // 128), KV_HEADS, 128, 64)
        table = torch.arange(len(cache), dtype=torch.int32).view(1, -1)
        keys = PagedKeys([cache], table, cpu_layout("vec", cache))
        with _LargestTensor(cache) as seen:
            paged_statistics(
                torch.randn(1, 1, HEADS, 32),
                keys,
                np.array([0]),
                np.array([n]),
                Scoring(0.2),
                blocks_at_once=4,
            )
        largest.append(seen.byte_count)
    assert largest == [4 * KV_HEADS * 128 * 32 * 4] * 2
