"""Lines of work on standard input, one JSON line of cost each on standard output: one vLLM engine in its own process.

A line is a JSON object: `batch` requests decode `tokens` tokens each, together, behind `context` tokens, or a question
where that is 0. `rate` is the share of them that is measured: with 0 all of Introspan is in place and idle, and with
`hooked` false it is not in place. With `export` false what is measured is thrown away where it would be handed to the
exporter.
"""

import json
import os
import resource
import sys
import time
from contextlib import nullcontext
from typing import Any

import numpy as np

_QUIET = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
}
_TOPICS = ("tides", "bread", "prime numbers", "the moon", "bees", "volcanoes", "jazz", "bridges")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# Any: vLLM's engine; `opened` is what the worker gave to its pipeline.
def _work(engine: Any, opened: dict[str, Any], work: dict[str, Any], seed: int) -> dict[str, Any]:
    from vllm import SamplingParams

    from bench.unhooked import unhooked

    params = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=work["tokens"], ignore_eos=True)
    for i in range(work["batch"]):
        engine.add_request(f"{seed}-{i}", _prompt(i, seed, work["context"]), params)
    while any(request.num_output_tokens == 0 for request in _scheduled(engine)):
        engine.step()
    # Only now: the runner hears in the step just done which requests of the work before have ended.
    with nullcontext() if work["hooked"] else unhooked(engine):
        return _timed(engine, opened, work["batch"])


def _timed(engine: Any, opened: dict[str, Any], batch: int) -> dict[str, Any]:
    steps: list[float] = []
    steps_cpu: list[float] = []
    ours_before = opened["status"]().capture_seconds
    cpu_before, started = _cpu_seconds(), time.perf_counter()
    while engine.has_unfinished_requests():
        before, before_cpu = time.perf_counter(), time.process_time()
        engine.step()
        steps_cpu.append(time.process_time() - before_cpu)
        steps.append(time.perf_counter() - before)
    return {
        "cpu_seconds": _cpu_seconds() - cpu_before,
        "wall_seconds": time.perf_counter() - started,
        "tokens": batch * len(steps),
        "steps": steps,
        "steps_cpu": steps_cpu,
        "ours_seconds": opened["status"]().capture_seconds - ours_before,
    }


def _prompt(i: int, seed: int, context: int) -> dict[str, Any]:
    """A question, or drawn tokens, of which all but the last are the same each time, so that they are cached."""
    if context:
        drawn = np.random.default_rng(i).integers(1_000, 40_000, context - 1).tolist()
        return {"prompt_token_ids": [*drawn, seed + 1_000]}
    asked = f"Explain {_TOPICS[i % len(_TOPICS)]} to reader {seed} in {i + 3} sentences."
    return {"prompt": f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"}


def _scheduled(engine: Any) -> list[Any]:
    """Requests that the scheduler holds."""
    return list(engine.engine_core.engine_core.scheduler.requests.values())


def main(model: str, *, eager: bool) -> None:
    """Serves lines of work until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the engine prints must not be taken for an answer
    from introspan import plugin
    from introspan.observation import Observation
    from introspan.pipeline import Pipeline

    opened: dict[str, Any] = {}

    class Switched(Pipeline):
        """The product's, with a switch in front of the exporter."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            opened.update(admission=args[4], status=args[5])

        def _send(self, observations: list[Observation]) -> None:
            super()._send(observations if opened["export"] else [])

    plugin.register(Switched)
    from vllm import LLM

    engine = LLM(model, dtype="float32", enforce_eager=eager, max_model_len=1024, max_num_seqs=16).llm_engine
    answers.write("{}\n")
    answers.flush()
    for seed, line in enumerate(sys.stdin):
        work = json.loads(line)
        opened["export"] = work["export"]
        opened["admission"]._rate = float(work["rate"])  # noqa: SLF001 - a product can only lower it
        answers.write(json.dumps(_work(engine, opened, work, seed)) + "\n")
        answers.flush()


if __name__ == "__main__":
    os.environ.update(_QUIET)
    main(sys.argv[1], eager=sys.argv[2] == "eager")
