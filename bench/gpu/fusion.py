"""A compiled engine with and without Introspan in; which patterns the compiler fused in each out."""

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench.gpu.device import count
from bench.gpu.engines import ABSENT, ENDPOINT, Kind, serving
from bench.gpu.models import DRAWN, drawn, prompts
from bench.gpu.scale import Scale

_REPLACED = re.compile(r"\[([\w/.]+?)\.py:\d+\].*?Replaced (\d+) patterns")
_TELLING = {"VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_DISABLE_COMPILE_CACHE": "1"}


def run(scale: Scale) -> dict[str, Any]:
    """Patterns replaced by each pass of vLLM, and how many of them Introspan costs."""
    parallel = 2 if count() >= 2 else 1
    engine: dict[str, Any] = {
        **DRAWN,
        "enforce_eager": scale.is_rehearsal,
        "max_model_len": 256,
        "tensor_parallel_size": parallel,
    }
    if parallel > 1:
        engine["compilation_config"] = {"pass_config": {"fuse_allreduce_rms": True}}
    fused = {}
    with tempfile.TemporaryDirectory() as scratch:
        model = drawn(scale.models["1b"], Path(scratch, "model"))
        for name, env in (("without", ABSENT), ("with", ENDPOINT)):
            log = Path(scratch, f"{name}.log")
            with serving(Kind(model, {**env, **_TELLING}, engine, log=log), scale) as served:
                served.answers([[token % 500 for token in prompts(1)[0]]], 2)
            fused[name] = patterns(log.read_text(encoding="utf-8", errors="replace"))
    return {
        "tensor_parallel": parallel,
        "all_reduce": "fused with norms" if parallel > 1 else "not there: it takes two GPUs",
        "lost": sum((fused["without"] - fused["with"]).values()),
        **{name: dict(found) for name, found in fused.items()},
    }


def patterns(log: str) -> Counter[str]:
    """Patterns replaced, by pass, as vLLM's log says."""
    found: Counter[str] = Counter()
    for name, replaced in _REPLACED.findall(log):
        found[name.rpartition("/")[2]] += int(replaced)
    return found
