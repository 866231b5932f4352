"""Sets of requests in, what the real capture measures of them in one vLLM engine out, a file for each set.

Run as a program: `python -m bench.faults.gather FOLDER --plan quiet`. A set whose file is there is not asked again.
"""

import argparse
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from bench.faults import greedy, quiet, tables
from bench.faults.engine_faults import CacheFault, sampler_fault
from bench.faults.fourth_protocol import FOURTH
from bench.faults.lock import LOCK
from bench.faults.position_faults import position_fault
from bench.faults.traffic import Call, Set, Traffic
from demo.model import cache_folder, prepare
from introspan.admission import Admission
from introspan.config import Settings
from introspan.digest.segments import Segments
from introspan.export import frame
from introspan.observation import CaptureStatus, Observation, Request, Resource, RowColumn, Rows

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "INTROSPAN_ENDPOINT": "127.0.0.1:1",
    # Answers are short: with the default of 24 most would have no decoded row.
    "INTROSPAN_TOKEN_STRIDE": "1",
    "INTROSPAN_ROW_BUDGET": "1000000",
}
BLOCK_TOKENS = 32
CHUNK_TOKENS = 16


class Kept:
    """Takes the place of introspan.pipeline.Pipeline: the same segments, kept instead of sent."""

    opened: "list[Kept]" = []  # noqa: RUF012 - the worker that makes the instance hands it to nobody

    def __init__(
        self,
        settings: Settings,
        resource: Resource,
        columns: tuple[RowColumn, ...],
        capacity: int,
        admission: Admission,
        status: Callable[[], CaptureStatus],
        switch_off: Callable[[], None],
    ) -> None:
        del settings, admission, switch_off
        self.resource = resource
        self.status = status
        self.observations: list[Observation] = []
        self._segments = Segments(columns, capacity)
        Kept.opened.append(self)

    def rows(self, rows: Rows) -> None:
        """Reduces the rows of one step."""
        self.observations += self._segments.add(rows, time.time_ns())

    def finished(self, request: Request, last_position: int) -> None:
        """Keeps what a request's last segment holds."""
        self.observations += self._segments.finish(request, last_position, time.time_ns())

    def canaries(self, observations: list[Observation]) -> None:
        """There are none."""

    def model_changed(self, fingerprint: str) -> None:
        """It does not change."""

    def close(self) -> None:
        """Nothing is open."""


# Any: vLLM's engine.
class Engine:
    """SmolLM2 in vLLM, in this process, with capture attached."""

    def __init__(self, model: Path, dtype: str) -> None:
        from introspan import plugin

        plugin.register(Kept)
        from vllm import LLM

        # Any: vLLM's own classes.
        self._llm: Any = LLM(
            str(model),
            dtype=dtype,
            enforce_eager=True,
            max_model_len=512,
            max_num_seqs=16,
            block_size=BLOCK_TOKENS,
        )
        self._engine = self._llm.llm_engine
        self._kept = Kept.opened[0]
        found: list[Any] = []
        self._engine.collective_rpc(lambda worker: found.append(worker.model_runner))
        self._runner = found[0]

    def ask(self, wanted: Set, path: Path) -> None:
        """Asks a set and writes what was measured."""
        calls = wanted.calls()
        self._kept.observations.clear()
        before = self._kept.status().drawn
        with sampler_fault(wanted.fault) as wrong, position_fault(wanted.fault, self._runner):
            answers = self._drive(wanted, calls)
        after = self._kept.status().drawn
        drawn = np.subtract(astuple(after), astuple(before))
        self._engine.reset_prefix_cache()
        answered = list(self._kept.observations)
        mine = [one for one in answered if one.request_id.startswith(f"{wanted.name}:")]
        perplexity = np.array([answers[f"{wanted.name}:{i}"] for i in range(len(calls))])
        extra = {"prompt_logprob": perplexity, "drawn": drawn, "wrong": np.array(wrong, np.bool_)}
        tables.save(path, frame.tables(mine), extra)

    def _drive(self, wanted: Set, calls: list[Call]) -> dict[str, float]:
        """Mean log-probability of each request's prompt, NaN where it is not wanted."""
        scheduling = self._engine.engine_core.engine_core.scheduler.scheduler_config
        if wanted.fault == "cached":
            self._answer(wanted, [(f"before:{i}", call) for i, call in enumerate(calls)])
            self._kept.observations.clear()
        usual = scheduling.long_prefill_token_threshold
        scheduling.long_prefill_token_threshold = CHUNK_TOKENS if wanted.fault == "chunked" else usual
        asked = [(f"{wanted.name}:{i}", call) for i, call in enumerate(calls)]
        at_once = 1 if wanted.is_apart or wanted.fault == "alone" else len(asked)
        found: dict[str, float] = {}
        for start in range(0, len(asked), at_once):
            found |= self._answer(wanted, asked[start : start + at_once])
        scheduling.long_prefill_token_threshold = usual
        # One more request, so that the worker hears that the others are finished.
        self._answer(wanted, [("last", Call([1], 2, 0.0))])
        return found

    def _answer(self, wanted: Set, asked: list[tuple[str, Call]]) -> dict[str, float]:
        from vllm import SamplingParams

        fault = CacheFault(wanted.fault, self._runner)
        found: dict[str, float] = {}
        for name, call in asked:
            params = SamplingParams(
                max_tokens=call.answer_tokens,
                temperature=call.temperature,
                ignore_eos=True,
                prompt_logprobs=0 if wanted.perplexity else None,
            )
            self._engine.add_request(name, {"prompt_token_ids": call.ids}, params)
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                if output.finished:
                    found[output.request_id] = _mean(output.prompt_logprobs)
            fault.after_step(BLOCK_TOKENS)
        return found


def _mean(logprobs: Any) -> float:
    if not logprobs:
        return float("nan")
    own = [next(iter(position.values())).logprob for position in logprobs if position]
    return float(np.mean(own))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is gathered: sets in the order in which they are wanted, and the engine's dtype. Any: a tokenizer.

    environment: what differs from ENVIRONMENT.
    """

    sets: Callable[[Any], Iterable[Set]]
    dtype: str
    environment: Mapping[str, str] = field(default_factory=dict)


PLANS = {
    "traffic": Plan(lambda tokenizer: Traffic(tokenizer).sets(), "float32"),
    "quiet": Plan(quiet.sets, "bfloat16"),
    greedy.PLAN: Plan(
        greedy.sets, "float32", {"INTROSPAN_TOKEN_STRIDE": str(FOURTH["greedy"]["token_stride"])}
    ),
}


def gather(
    folder: Path,
    plan: Plan,
    say: Callable[[str], None],
    seconds: float = float("inf"),
    only: Sequence[str] = (),
) -> None:
    """Asks every set that has no file in the folder, until so many seconds are over; one program does it at a time.

    only: names of sets, where others are not wanted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another program gathers: what is there already is used")
            return
        model = prepare(cache_folder(), say)
        sets = plan.sets(AutoTokenizer.from_pretrained(model))
        wanted = [one for one in sets if not only or one.name in only]
        _gather(folder, model, plan, wanted, say, seconds)


def _gather(
    folder: Path, model: Path, plan: Plan, sets: Iterable[Set], say: Callable[[str], None], seconds: float
) -> None:
    missing = [one for one in sets if not (folder / f"{one.name}.npz").exists()]
    if not missing:
        return
    os.environ.update({**ENVIRONMENT, **plan.environment})
    engine = Engine(model, plan.dtype)
    began = time.monotonic()
    for wanted in missing:
        if not wanted.calls():  # texts of its stratum are used up
            continue
        if time.monotonic() - began > seconds:
            return
        before = time.monotonic()
        engine.ask(wanted, folder / f"{wanted.name}.npz")
        say(f"{wanted.name}: {time.monotonic() - before:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plan", choices=PLANS, default="traffic")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no set is begun after so many")
    parser.add_argument("--only", action="append", default=[], help="ask the set of this name alone")
    given = parser.parse_args()
    gather(given.folder, PLANS[given.plan], lambda line: print(line, flush=True), given.seconds, given.only)
