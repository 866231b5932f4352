"""Claims on what importing the SDK brings along: nothing heavy, no thread."""

import json
import subprocess
import sys

import pytest

import introspan

HEAVY = {"torch", "vllm", "grpc", "transformers", "duckdb", "introspan_collector"}


@pytest.mark.parametrize(
    "module",
    [
        "introspan",
        "introspan.plugin",
        "introspan.instrumentor",
        "introspan.config",
        "introspan.context",
        "introspan.export",
    ],
)
def test_importing_brings_neither_torch_nor_vllm_nor_grpc_nor_a_thread(module):
    script = (
        f"import json, sys, threading, {module}; "
        "print(json.dumps([sorted({name.partition('.')[0] for name in sys.modules}), threading.active_count()]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules, threads = json.loads(done.stdout)
    assert not HEAVY & set(modules)
    assert threads == 1


def test_the_public_names_are_sorted_and_exist():
    assert introspan.__all__ == sorted(introspan.__all__)
    assert all(hasattr(introspan, name) for name in introspan.__all__)
