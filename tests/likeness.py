"""A folder in, a small likeness of vLLM's modules in it out, and programs of their own that run against it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIKENESS = {
    "engine/arg_utils.py": """
        from types import SimpleNamespace
        class EngineArgs:
            def __init__(self, additional_config=None):
                self.additional_config = {} if additional_config is None else additional_config
            def create_engine_config(self):
                return SimpleNamespace(additional_config=self.additional_config)
    """,
    "v1/engine/async_llm.py": """
        class AsyncLLM:
            def __init__(self):
                self.got = None
            async def generate(self, prompt, sampling_params, request_id, *, trace_headers=None):
                self.got = sampling_params
                yield prompt
    """,
    "entrypoints/serve/engine/serving.py": """
        class BaseServing:
            async def _get_trace_headers(self, headers):
                return {"traceparent": headers["traceparent"]}
            async def _check_model(self, request):
                return None
    """,
    "v1/core/sched/output.py": """
        class NewRequestData:
            @classmethod
            def from_request(cls, request, block_ids):
                return cls()
    """,
    "v1/worker/worker_base.py": """
        class WorkerWrapperBase:
            def init_device(self):
                return None
    """,
}
"""Method for method as in vLLM 0.32.0."""


def write(folder: Path) -> Callable[..., tuple[Any, str]]:
    """Runs Python with the likeness of vLLM; returns what it printed as JSON last, and its standard error.

    auto: behind `opentelemetry-instrument`. Other keywords are environment variables.
    """
    for name, text in LIKENESS.items():
        path = folder / "vllm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        path.write_text("\n".join(line[8:] for line in lines))
        for package in path.relative_to(folder).parents:
            if package.name:
                (folder / package / "__init__.py").touch()
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("INTROSPAN_", "OTEL_"))
    }

    def run(script: str, *, auto: bool = False, **env: str) -> tuple[Any, str]:
        command = [str(Path(sys.executable).with_name("opentelemetry-instrument"))] if auto else []
        done = subprocess.run(
            [*command, sys.executable, "-c", script],
            env=clean | {"PYTHONPATH": str(folder), "INTROSPAN_ENDPOINT": "127.0.0.1:1"} | env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return run
