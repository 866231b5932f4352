"""An engine that is taken down the ladder rung by rung, in; what each rung costs beside an engine without us, out."""

import tempfile
from pathlib import Path
from typing import Any

from bench.gpu.cost import compare, fitting
from bench.gpu.engines import ABSENT, ENDPOINT, Kind, serving
from bench.gpu.models import drawn
from bench.gpu.scale import Scale

_RUNGS = 3


def run(scale: Scale) -> dict[str, Any]:
    """By rung: the ratio of times per token, rows that were measured; and what was said where there is none below."""
    batch, context = min(16, max(scale.batches)), scale.contexts["512"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = drawn(scale.models["1b"], Path(scratch, "model"))
        engine = fitting([batch], context, scale.tokens, 0.45)
        on = Kind(folder, ENDPOINT, engine, rows=True, watch="times")
        # In one process as the other is: what an engine's own process costs would be told of ours.
        off = Kind(folder, ABSENT | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, engine)
        values: dict[str, Any] = {}
        with serving(off, scale) as without, serving(on, scale) as with_us:
            rung = "IN_GRAPH"
            for _ in range(_RUNGS):
                before = with_us.state()["status"]["measured_rows"]
                times = compare({"off": without, "on": with_us}, batch, context, scale)
                status = with_us.state()["status"]
                values[rung.lower()] = times | {"measured_rows": status["measured_rows"] - before}
                fell = with_us.fall()
                if not fell["rung"]:
                    return values | {"below": fell["why"]}
                rung = fell["rung"]
    return values
