"""A machine in, its devices and the versions of what is measured out."""

from typing import Any

from bench.gpu.scale import Scale
from bench.machine import hardware


# Any: values of a step, as JSON; so in every step.
def run(scale: Scale) -> dict[str, Any]:
    """Names, versions and capabilities."""
    import torch
    import vllm

    values: dict[str, Any] = {"host": hardware(), "vllm": vllm.__version__, "torch": torch.__version__}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        values |= {
            "cuda": torch.version.cuda,
            "gpus": torch.cuda.device_count(),
            "gpu": properties.name,
            "gpu_memory_gib": properties.total_memory / 2**30,
            "compute_capability": f"{properties.major}.{properties.minor}",
        }
    return values | {"dtype": scale.dtype}
