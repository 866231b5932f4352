"""A file that says what an engine is to do in; what it answered and what was measured of it, as a file, out."""

import json
import multiprocessing.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from engine import Call, Run


def main(given: Path, out: Path) -> None:
    """Drives the engine."""
    task = Run(**json.loads(given.read_text()))
    calls = [Call(**call) for call in task.calls]  # type: ignore[arg-type]  # dictionaries, as read from JSON
    if task.before:
        exec(task.before, {})
    log = None
    if task.pipeline == "rows":
        from introspan import plugin
        from introspan.testing import RowLog

        plugin.register(RowLog)
    from vllm import LLM

    llm = LLM(task.model, **({"dtype": "float32", "enforce_eager": True} | task.engine))
    engine = llm.llm_engine
    if task.pipeline == "rows":
        log = RowLog.opened[0]
    counted = _count_preemptions()
    if task.engine.get("runner") == "pooling":
        tokens, logprobs, cached = _embed(llm, calls), {}, {}
    else:
        tokens, logprobs, cached = _drive(engine, calls, task.rpcs)
    kept = log.kept if log is not None else []
    meta = {
        "tokens": tokens,
        "logprobs": logprobs,
        "cached": cached,
        "columns": log.columns if log is not None else [],
        "row_ids": [request.request_id for rows in kept for request in rows.requests],
        "hashes": {request.request_id: request.hash for rows in kept for request in rows.requests},
        "seeds": _seeds(kept),
        "ended": {request.request_id: last for request, last in log.ended.values()}
        if log is not None
        else {},
        "adapters": {request.request_id: request.adapter for rows in kept for request in rows.requests},
        "fingerprints": [name for _, name in log.fingerprints] if log is not None else [],
        "row_models": [
            sum(before <= i for before, _ in log.fingerprints)
            for i, rows in enumerate(kept)
            for _ in rows.requests
        ],
        "preemptions": counted[0],
        "status": asdict(log.status()) if log is not None else {},
        "resource": asdict(log.resource) if log is not None else {},
    }
    width = len(log.columns) if log is not None else 0
    np.savez(
        out,
        meta=json.dumps(meta),
        positions=np.concatenate([rows.position for rows in kept]) if kept else np.zeros(0, np.int64),
        values=np.concatenate([rows.values for rows in kept]) if kept else np.zeros((0, width), np.float32),
    )
    if task.takes_leave:
        multiprocessing.util._run_finalizers(0)


# Any: vLLM's LLM.
def _embed(llm: Any, calls: list[Call]) -> dict[str, list[list[float]]]:
    """By call what a model that generates no tokens makes of its prompt."""
    outputs = llm.embed([{"prompt_token_ids": call.prompt} for call in calls], use_tqdm=False)
    return {call.id: [output.outputs.embedding] for call, output in zip(calls, outputs, strict=True)}


# Any: introspan.observation.Rows, of engines that have it.
def _seeds(kept: list[Any]) -> dict[str, int]:
    """What V of `sampler.pit` is drawn from, by request."""
    from introspan.context import request_hash

    return {request.request_id: request_hash(request.key) for rows in kept for request in rows.requests}


def _count_preemptions() -> list[int]:
    """A list whose first entry counts, from now on, how often the scheduler put a request back."""
    from vllm.v1.core.sched.scheduler import Scheduler

    original, counted = Scheduler._preempt_request, [0]

    def preempt(*args: Any, **kwargs: Any) -> Any:
        counted[0] += 1
        return original(*args, **kwargs)

    Scheduler._preempt_request = preempt
    return counted


def _drive(
    engine: Any, calls: list[Call], rpcs: list[tuple[int, str, dict[str, Any]]]
) -> tuple[dict, dict, dict]:
    from vllm import SamplingParams

    tokens, logprobs, cached = {}, {}, {}
    waiting, step = list(calls), 0
    numbers = {name: i for i, name in enumerate(sorted({call.adapter for call in calls} - {""}), start=1)}
    while waiting or engine.has_unfinished_requests() or any(at >= step for at, _, _ in rpcs):
        for at, method, kwargs in rpcs:
            if at == step:
                engine.collective_rpc(method, kwargs=kwargs)
        for call in [call for call in waiting if call.at <= step]:
            bias = call.params.get("logit_bias")  # its keys have become text in JSON
            given = call.params | ({"logit_bias": {int(k): v for k, v in bias.items()}} if bias else {})
            engine.add_request(
                call.id,
                {"prompt_token_ids": call.prompt},
                SamplingParams(**given),
                lora_request=_lora(call.adapter, numbers),
            )
            waiting.remove(call)
        engine.abort_request([call.id for call in calls if call.abort_at == step])
        for output in engine.step():
            cached[output.request_id] = output.num_cached_tokens or 0
            for sample in output.outputs:
                tokens.setdefault(output.request_id, {})[sample.index] = list(sample.token_ids)
                logprobs.setdefault(output.request_id, {})[sample.index] = [
                    {str(token): entry.logprob for token, entry in position.items()}
                    for position in (sample.logprobs or [])
                ]
        step += 1
    # One more request, so that the worker hears that the others are finished.
    engine.add_request("last", {"prompt_token_ids": [1]}, SamplingParams(max_tokens=2, temperature=0))
    while engine.has_unfinished_requests():
        engine.step()
    # Every worker answers this: those of whose tokens the engine needs none may have the last step before them, and
    # what they have not heard of by its end they never do.
    engine.collective_rpc("check_health")
    in_order = lambda found: {key: [found[key][i] for i in sorted(found[key])] for key in found}  # noqa: E731 - of this function alone
    return in_order(tokens), in_order(logprobs), cached


def _lora(adapter: str, numbers: dict[str, int]) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(Path(adapter).name, numbers[adapter], adapter) if adapter else None
