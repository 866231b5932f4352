"""The map of residual.projection: orthonormal, and the same everywhere."""

import numpy as np
import pytest
import torch

from introspan.capture.stream.projection import orthogonal_map, project


@pytest.mark.parametrize("d", [32, 576, 4096])
def test_rows_are_orthonormal(d):
    rows = orthogonal_map(d).astype(np.float64)
    assert rows.shape == (32, d)
    assert np.allclose(rows @ rows.T, np.eye(32), atol=1e-6)


def test_map_is_the_same_everywhere_and_in_every_version():
    # Archived projections are only comparable while these hold.
    expected = [0.03830146, -0.02196928, 0.01214869]
    assert orthogonal_map(576)[[0, 1, 31], [0, 5, 575]].tolist() == pytest.approx(expected, abs=1e-7)


def test_map_does_not_depend_on_the_linear_algebra_library():
    gaussian = np.random.Generator(np.random.PCG64(20211)).standard_normal((96, 32))
    rows: list[np.ndarray] = []
    for column in gaussian.T:
        rest = column - sum((row @ column) * row for row in rows)
        rest -= sum((row @ rest) * row for row in rows)
        rows.append(rest / np.linalg.norm(rest))
    assert np.allclose(orthogonal_map(96), rows, atol=1e-6)


def test_another_seed_gives_another_map():
    assert not np.allclose(orthogonal_map(64), orthogonal_map(64, seed=1))


def test_projection_is_that_of_the_stream_normalised_to_unit_rms():
    h = np.random.default_rng(0).normal(size=(2, 3, 96))
    normalised = h / np.sqrt((h**2).mean(axis=-1, keepdims=True))
    rows = orthogonal_map(96)
    unit = torch.from_numpy(h / np.linalg.norm(h, axis=-1, keepdims=True)).float()
    found = project(unit, torch.from_numpy(rows))
    assert np.allclose(found, np.einsum("cd,rld->rlc", rows.astype(np.float64), normalised), atol=1e-5)


def test_a_hidden_size_below_32_is_refused():
    with pytest.raises(ValueError, match="hidden size d must be >= 32 for projections, got 16"):
        orthogonal_map(16)
