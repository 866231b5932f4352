"""Calls of kernels in, their results out, computed on the CPU by Triton's interpreter in a process of its own.

Whether Triton interprets or compiles is settled when it is first imported, which vLLM does in the process of other
tests; and no server that a test starts should inherit the setting.
"""

import importlib
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from introspan.capture.kernels.paged_attention import Grain, on_device
from introspan.capture.kernels.stream import Earlier

_ROOT = Path(__file__).parents[1]
_CPU = torch.device("cpu")


class Interpreter:
    """A process that calls functions of `introspan.capture.kernels`, or of a module named whole; to be closed."""

    def __init__(self) -> None:
        found = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": found}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.interpreted"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env=environment,
        )

    def call(self, module: str, function: str, *arguments: Any) -> Any:
        """What the function returns, and the arguments as it left them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((module, function, arguments), self._process.stdin)
        self._process.stdin.flush()
        try:
            result, error = pickle.load(self._process.stdout)
        except EOFError:
            raise AssertionError(
                f"the interpreter died: {self._process.wait()}; it read where it must not"
            ) from None
        if error is not None:
            raise AssertionError(error)
        return result

    def attention(self, q: Any, keys: Any, lengths: Any, scoring: Any, range_keys: int) -> Any:
        """Statistics of attention; q: [layers, rows, heads, d]; lengths: an array."""
        arguments = (
            list(q),
            keys,
            on_device(lengths, _CPU),
            scoring,
            Grain(tile_keys=32, range_keys=range_keys),
        )
        return self.call("paged_attention", "paged_statistics", *arguments)[0]

    def output(self, q: Any, keys: Any, lengths: Any, scoring: Any, scale: Any, range_keys: int) -> Any:
        """Recomputed output of one layer; q: [rows, heads, d]."""
        arguments = (
            q,
            keys,
            on_device(lengths, _CPU),
            scoring,
            scale,
            Grain(tile_keys=32, range_keys=range_keys),
        )
        return self.call("paged_attention", "paged_output", *arguments)[0]

    def streams(self, h: Any, at: Any, after: Any, last: Any, before_last: Any, kept: Any) -> Any:
        """Residual signals of rows, of which some came before others or were kept."""
        earlier = Earlier(last, before_last, kept)
        return self.call("stream", "stream_statistics", h, at, after, earlier)[0]

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def _serve() -> None:
    # What kernels print must not reach the one that reads results.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            module, function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            whole = module if "." in module else f"introspan.capture.kernels.{module}"
            called = getattr(importlib.import_module(whole), function)
            answer = ((called(*arguments), arguments), None)
        except Exception:  # noqa: BLE001 - handed to the test
            answer = (None, traceback.format_exc())
        pickle.dump(answer, results)
        results.flush()


if __name__ == "__main__":
    _serve()
