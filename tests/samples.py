"""Made-up requests whose distribution is known: n of them as a Sample."""

import numpy as np

from introspan_collector.detect.reference.reference import Identity
from introspan_collector.detect.sample import Feature, Sample
from introspan_wire.signals import Kind

IDENTITY = Identity("m", "f00d", "vllm", "0.32.0", "bfloat16", "", 32)
START_UNIX_NANO = 1_800_000_000 * 10**9
HOUR_NANO = 3600 * 10**9
CENTRES = 6.0 * np.eye(4, 64)


def features(count):
    """Names of so many features: signals at layers 0, 1, …"""
    return tuple(Feature("residual.log_rms", layer) for layer in range(count))


def sample(
    rng, count, values=None, *, kind=Kind.PROMPT, class_id=None, seed=None, hours=(0.0, 25.0), **replaced
):
    """Requests of four classes of input whose features are normal with mean class_id/2, one request a cluster."""
    class_id = rng.integers(0, 4, count) if class_id is None else class_id
    if values is None:
        values = rng.standard_normal((count, 8)) + class_id[:, None] / 2
    first, last = (START_UNIX_NANO + int(hour * HOUR_NANO) for hour in hours)
    fields = {
        "kind": kind,
        "names": features(values.shape[1]),
        "features": values.astype(np.float32),
        "projection_layers": (16, 30),
        "projection": (rng.standard_normal((count, 64)) + CENTRES[class_id]).astype(np.float32),
        "length": rng.integers(16, 4096, count),
        "seed": rng.integers(0, 2**63, count).astype(np.uint64) if seed is None else seed,
        "cluster": rng.integers(0, 2**63, count).astype(np.uint64),
        "request_id": tuple(map(str, range(count))),
        "trace_id": np.zeros((count, 16), np.uint8),
        "time_unix_nano": rng.integers(first, last, count).astype(np.uint64),
    }
    return Sample(**{**fields, **replaced})
