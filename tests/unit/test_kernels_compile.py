"""The kernels, compiled for GPUs that are not here: that they can be, and that what they need fits.

The interpreter takes what the compiler does not; ptxas comes with Triton. Nothing is run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]

# Of one block of threads, in bytes, by compute capability; that of 8.9 is the least of all.
SHARED_BYTES = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
KERNELS = {"add_up", "merge", "measure", "project", "copy", "reduce", "draws"}


@pytest.mark.parametrize(
    "capability", [90, *(pytest.param(each, marks=pytest.mark.slow) for each in SHARED_BYTES if each != 90)]
)
def test_every_kernel_compiles_once_and_fits_the_shared_memory_of_the_gpu(capability, tmp_path):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.compiled", str(capability)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    needed = found["shared_bytes"]
    assert {name.split()[0] for name in needed} == KERNELS
    for name, shared_bytes in needed.items():
        assert shared_bytes <= SHARED_BYTES[capability], name
    # Compiling takes a second, on the model's thread.
    assert found["anew"] == [], "other batches, of more rows or longer contexts, compiled these"
