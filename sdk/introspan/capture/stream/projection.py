"""A normalised residual stream in, 32 numbers out: where in its space it is."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from introspan_wire.signals import PROJECTION_COMPONENTS

PROJECTION_SEED = 20211
"""Seed of the map; changing it makes every earlier projection incomparable."""


def orthogonal_map(d: int, seed: int = PROJECTION_SEED) -> NDArray[np.float32]:
    """Orthonormal rows [32, d], the same on every platform: Gram-Schmidt of PCG64 Gaussians in float64.

    d must be ≥ 32.
    """
    if d < PROJECTION_COMPONENTS:
        raise ValueError(f"hidden size d must be >= {PROJECTION_COMPONENTS} for projections, got {d}")
    gaussian = np.random.Generator(np.random.PCG64(seed)).standard_normal((d, PROJECTION_COMPONENTS))
    q, r = np.linalg.qr(gaussian)
    # QR leaves the sign of each column open, and libraries differ in it.
    return np.ascontiguousarray((q * np.sign(np.diag(r))).T, dtype=np.float32)


def project(unit: Tensor, map_: Tensor) -> Tensor:
    """P ĥ from unit vectors h/‖h‖ [..., d] and the map [32, d] → float32 [..., 32]; ĥ = √d · h/‖h‖."""
    return torch.matmul(unit, map_.t()) * math.sqrt(unit.shape[-1])
