"""Claims on the fingerprint of weights in memory."""

import time

import pytest
import torch
from torch import nn

from introspan.capture.model.loaded import BLOCK_BYTES, LOADED, loaded_fingerprint, unread_fingerprint

WORDS = BLOCK_BYTES // 4


def model(words: int = 3 * WORDS + 5, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    holder = nn.Module()
    weight = torch.randn(words, generator=torch.Generator().manual_seed(seed)).to(dtype)
    holder.register_parameter("w", nn.Parameter(weight, requires_grad=False))
    return holder


def unrepeated() -> bytes:
    raise AssertionError("nothing here is hidden")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_the_same_weights_are_the_same_model(dtype):
    one, two = (loaded_fingerprint(model(dtype=dtype), nonce=unrepeated) for _ in range(2))
    assert one == two
    assert one.startswith(LOADED)
    assert len(one) == len(LOADED) + 64


@pytest.mark.parametrize("place", [0, WORDS - 1, WORDS, 3 * WORDS, 3 * WORDS + 4])
def test_one_changed_bit_anywhere_is_another_model(place):
    changed = model()
    changed.w.view(torch.int32)[place] ^= 1
    assert loaded_fingerprint(changed) != loaded_fingerprint(model())


def test_name_type_and_shape_count():
    renamed, reshaped, retyped = nn.Module(), nn.Module(), nn.Module()
    weight = torch.zeros(8, 4)
    renamed.register_parameter("v", nn.Parameter(weight))
    reshaped.register_parameter("w", nn.Parameter(weight.view(4, 8)))
    retyped.register_parameter("w", nn.Parameter(weight.view(torch.int32), requires_grad=False))
    plain = nn.Module()
    plain.register_parameter("w", nn.Parameter(weight))
    assert len({loaded_fingerprint(each) for each in (plain, renamed, reshaped, retyped)}) == 4


def test_weights_that_a_kernel_keeps_to_itself_never_pass_for_unchanged():
    hidden = model()
    hidden.register_parameter("packed", nn.Parameter(torch.empty(0)))
    assert loaded_fingerprint(hidden) != loaded_fingerprint(hidden)
    assert loaded_fingerprint(hidden, nonce=lambda: b"n") == loaded_fingerprint(hidden, nonce=lambda: b"n")


def test_a_parameter_is_read_as_it_lies_without_a_copy():
    holder = nn.Module()
    holder.register_parameter("w", nn.Parameter(torch.randn(64, 32).t()))
    assert loaded_fingerprint(holder) == loaded_fingerprint(holder)


def test_a_budget_bounds_what_is_summed_and_a_changed_model_still_shows():
    large, budget = 64 * WORDS, 4 * BLOCK_BYTES
    assert loaded_fingerprint(model(large), budget) != loaded_fingerprint(model(large, seed=1), budget)


def test_half_a_gibibyte_takes_less_than_two_seconds():
    large = nn.Module()
    large.register_parameter("w", nn.Parameter(torch.ones(2**27)))
    began = time.process_time()
    loaded_fingerprint(large)
    assert time.process_time() - began < 2


def test_weights_that_nobody_read_are_like_no_others():
    names = {unread_fingerprint() for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(LOADED) for name in names)
