"""Orders on standard input, answers on standard output, a line of JSON each: one vLLM engine in its own process.

The first argument is a file with what engine it is. An order is `work` (requests at once, and when their tokens came),
`answers` (tokens and log-probabilities of given prompts, one after another), `together` (tokens of requests that are
all served at once), `state` (what the engine is, and its memory), `rows` (what was measured, as a file), `watched`
(see watched.py) or `fall` (see ladder.py).
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.hooks import hook_layers
from bench.gpu.memory import resident


# Any throughout: vLLM's engine, and JSON.
class Served:
    """One engine, and what it is asked to do."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._log: Any = None
        self._watch: Any = None
        if given["watch"]:
            from bench.gpu.watched import Watch

            self._watch = Watch()
            self._watch.install(waits=given["watch"] == "waits")
        if given["rows"]:
            from introspan import plugin
            from introspan.testing import RowLog

            plugin.register(RowLog)
        from vllm import LLM

        self._llm = LLM(given["model"], **given["engine"])
        if given["rows"]:
            self._log = RowLog.opened[0]
        if given["hooks"]:
            self._llm.collective_rpc(hook_layers)

    def work(self, batch: int, context: int, tokens: int, seed: int) -> dict[str, Any]:
        """Requests of drawn tokens, all at once: seconds to each one's first token, and between those after it."""
        engine = self._llm.llm_engine
        draw = np.random.default_rng(seed)
        began = time.perf_counter()
        for i in range(batch):
            self._add(f"{seed}-{i}", draw.integers(3, 500, context).tolist(), {"max_tokens": tokens})
        came: dict[str, list[tuple[float, int]]] = {}
        while engine.has_unfinished_requests():
            for output in engine.step():
                arrivals = came.setdefault(output.request_id, [])
                arrivals.append((time.perf_counter() - began, len(output.outputs[0].token_ids)))
        # Several may come in one step where scheduling is asynchronous: by tokens, not by arrivals.
        between = [(each[-1][0] - each[0][0]) / (each[-1][1] - each[0][1]) for each in came.values()]
        return {
            "ttft": [each[0][0] for each in came.values()],
            "tpot": between,
            "seconds": time.perf_counter() - began,
            "tokens": sum(each[-1][1] for each in came.values()),
        }

    def answers(self, prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        """What the likeliest continuations are, one request after another, and the log-probability of each token."""
        engine = self._llm.llm_engine
        said: list[list[int]] = []
        logprobs: list[list[float]] = []
        for i, prompt in enumerate(prompts):
            self._add(f"answer-{i}", prompt, {"max_tokens": tokens, "temperature": 0.0, "logprobs": 0})
            last: Any = None
            while engine.has_unfinished_requests():
                for output in engine.step():
                    last = output.outputs[0]
            said.append(list(last.token_ids))
            found = zip(last.token_ids, last.logprobs, strict=True)
            logprobs.append([position[token].logprob for token, position in found])
        self._end_all()
        return {"tokens": said, "logprobs": logprobs}

    def together(self, requests: list[dict[str, Any]]) -> dict[str, Any]:
        """Tokens of requests that are served at once; each has a name, a prompt and parameters of sampling."""
        engine = self._llm.llm_engine
        for request in requests:
            self._add(request["name"], request["prompt"], request["params"])
        said: dict[str, list[int]] = {}
        while engine.has_unfinished_requests():
            for output in engine.step():
                said[output.request_id] = list(output.outputs[0].token_ids)
        self._end_all()
        return {"tokens": said}

    def state(self) -> dict[str, Any]:
        """What the engine turned out to be, and the memory of its worker in bytes."""
        config = self._llm.llm_engine.vllm_config
        (memory,) = self._llm.collective_rpc(resident)[:1]
        return {
            "graphs": getattr(config.compilation_config.cudagraph_mode, "name", "NONE"),
            "runner": "V2" if getattr(config, "use_v2_model_runner", False) else "V1",
            "asynchronous": bool(config.scheduler_config.async_scheduling),
            "memory": memory,
            "status": asdict(self._log.status()) if self._log is not None else {},
        }

    def watched(self, *, anew: bool) -> dict[str, Any]:
        """What was seen of our own work since the engine began. anew: it is then forgotten."""
        found: dict[str, Any] = self._watch.found() | {"capture_seconds": self._log.status().capture_seconds}
        if anew:
            self._watch.forget()
        return found

    def fall(self) -> dict[str, Any]:
        """Takes the engine to the next rung of the ladder; where it is then, and why where there is none."""
        if not self._watch.ladders:
            return {"rung": "", "why": "forwards are run by Python here, and not replayed"}
        ladder = self._watch.ladders[-1]
        before = ladder.rung
        ladder.fall("residual", "the benchmark asks for it", ladder.steps)
        has_fallen = ladder.rung is not before
        return {"rung": ladder.rung.name if has_fallen else "", "why": "the engine offers no other"}

    def rows(self, into: str) -> dict[str, Any]:
        """Writes every row that was measured so far, without the last request's own."""
        kept = self._log.kept
        np.savez(
            into,
            columns=json.dumps([list(column) for column in self._log.columns]),
            ids=json.dumps([request.request_id for rows in kept for request in rows.requests]),
            positions=np.concatenate([rows.position for rows in kept]) if kept else np.zeros(0, np.int64),
            values=np.concatenate([rows.values for rows in kept])
            if kept
            else np.zeros((0, len(self._log.columns)), np.float32),
        )
        return {"rows": sum(len(rows.requests) for rows in kept)}

    def _end_all(self) -> None:
        """The worker hears only in a later step that a request is finished."""
        self._add("last", [1, 2], {"max_tokens": 2})
        while self._llm.llm_engine.has_unfinished_requests():
            self._llm.llm_engine.step()

    def _add(self, name: str, prompt: list[int], params: dict[str, Any]) -> None:
        from vllm import SamplingParams

        self._llm.llm_engine.add_request(
            name, {"prompt_token_ids": prompt}, SamplingParams(ignore_eos=True, detokenize=False, **params)
        )


def main(given: Path) -> None:
    """Serves orders until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the engine prints must not be taken for an answer
    served = Served(json.loads(given.read_text(encoding="utf-8")))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(getattr(served, order.pop("order"))(**order)), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
