"""A worker on a CPU computes with torch and never imports Triton for it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
import numpy as np
import torch
before = "triton" in sys.modules  # which torch may have done for itself
import introspan.capture.worker
from introspan.capture.attention.statistics import PagedKeys, Scoring, paged_statistics
from introspan.capture.kernels.choice import computes_on, register_on
from tests.strided import strided
made = strided("LBNHC", "float32", [5], 2, 32, 16)
keys = PagedKeys([made.cache], made.table, made.layout)
paged_statistics([torch.randn(1, 4, 32)], keys, np.array([0]), np.array([5]), Scoring(0.2))
register_on(torch.device("cpu"))
assert not computes_on(torch.device("cpu"))
assert computes_on(torch.device("cuda"))  # Triton is installed here
kernels = {name for name in sys.modules if name.startswith("introspan.capture.kernels.")}
assert kernels == {"introspan.capture.kernels.choice"}, kernels
assert before or "triton" not in sys.modules
"""


def test_a_worker_on_a_cpu_imports_no_kernel_and_no_triton():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
