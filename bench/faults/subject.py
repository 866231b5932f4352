"""A prepared model and a dtype in, rounds of the canary out: of the healthy model, and of what was done to it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

from bench.faults import answers, questions
from bench.faults.batch import Text, neighbour, steps
from bench.faults.forward import Forward, Plan
from bench.faults.protocol import PROTOCOL
from bench.faults.tracking import Tracker
from bench.faults.weights import Change, changed, healthy_weights
from introspan_collector.detect.canary_baseline import Baseline, build
from introspan_collector.detect.canary_record import Arrays, dump_rounds, load_rounds

_HEALTHY, _CHANGED = 1000, 2000


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rounds of a change; is_other: whether any weight differs from the healthy model's."""

    rounds: list[answers.Round]
    is_other: bool


class Subject:
    """One model in one dtype, with a baseline. folder keeps what was drawn, so that it is drawn once."""

    def __init__(self, model: Path, dtype: str, folder: Path, step: Callable[[str], None]) -> None:
        self.dtype = dtype
        self._step = step
        self._full = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.healthy = healthy_weights(self._full)
        self.model = self._full.to(getattr(torch, dtype)).eval()
        # Any: transformers leaves its tokenizers untyped.
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        self.forward = Forward(self.model)
        self.tokenization = questions.of_model(self.tokenizer)
        self.asked = questions.prompts(self.tokenization)
        self.generated = questions.answered(self.model, self.asked)
        self._origin = answers.origin(self.forward, "healthy", transformers.__version__)
        draws = {self._draw(trial) for trial in range(PROTOCOL["compositions_of_changed_rounds"])}
        self._clean: dict[int, list[Tensor]] = {draw: self.forward.streams(self.plan(draw)) for draw in draws}
        self.gathered = self._rounds(folder / f"baseline-{dtype}.npz", 0, PROTOCOL["baseline_rounds"])
        self.baseline: Baseline = build(self.gathered)
        self.tracker = Tracker(self.gathered)
        self.averaged = self._averaged()
        self.held_out = self._rounds(folder / f"healthy-{dtype}.npz", _HEALTHY, PROTOCOL["healthy_rounds"])

    def plan(self, draw: int, texts: Mapping[str, Text] | None = None) -> Plan:
        """The suite in the batch composition of a draw."""
        asked = questions.requests(self.asked, self.generated) if texts is None else texts
        beside = neighbour(int(self.model.config.vocab_size), draw)
        together = {**asked, "neighbour": beside}
        return Plan(together, steps(together, draw))

    def changed(self, change: Change, trial: int, rounds: int) -> Drawn:
        """Rounds of a model with a change, each in a composition that the baseline has not seen."""
        with changed(self.model, self.healthy, change) as is_other:
            drawn = [self._changed_round(change, trial + i) for i in range(rounds)]
        return Drawn(drawn, is_other)

    def asked_otherwise(self, plan: Callable[[int], Plan], trial: int, rounds: int) -> list[answers.Round]:
        """Rounds of other texts or positions: plan takes the draw's number."""
        found = []
        for i in range(rounds):
            made = plan(self._draw(trial + i))
            found.append(self._answers(made, self.forward.streams(made)))
        return found

    def _changed_round(self, change: Change, trial: int) -> answers.Round:
        draw = self._draw(trial)
        plan = self.plan(draw)
        if change.layer is None:
            return self._answers(plan, self.forward.streams(plan))
        # What enters the changed layer is what enters it in the healthy model.
        clean = self._clean[draw]
        after = self.forward.streams(plan, change.layer, clean[change.layer])
        return self._answers(plan, [*clean[: change.layer], *after])

    def _draw(self, trial: int) -> int:
        return _CHANGED + trial % int(PROTOCOL["compositions_of_changed_rounds"])

    def _answers(self, plan: Plan, streams: list[Tensor]) -> answers.Round:
        return answers.answers(self.forward, plan, streams, self._origin, "0")

    def _rounds(self, path: Path, first: int, count: int) -> list[answers.Round]:
        if path.exists():
            return _load(path)
        drawn = []
        for draw in range(first, first + count):
            plan = self.plan(draw)
            drawn.append(self._answers(plan, self.forward.streams(plan)))
            self._step(f"{self.dtype}: healthy round {len(drawn)} of {count}")
        _save(path, drawn)
        return drawn

    def _averaged(self) -> Baseline | None:
        """A baseline of as many means of rounds, for layers that are named after averaging."""
        count = PROTOCOL["rounds_averaged_to_name_a_layer"][self.dtype]
        if count == 1:
            return None
        random = np.random.default_rng(PROTOCOL["seed"])
        n = len(self.gathered)
        drawn = [random.choice(n, count, replace=False) for _ in range(n)]
        return build([answers.mean_states([self.gathered[i] for i in some]) for some in drawn])


def _save(path: Path, rounds: list[answers.Round]) -> None:
    arrays: Arrays = {}
    header = dump_rounds(rounds, "", arrays)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, header=np.array(json.dumps(header)), **arrays)
    partial.rename(path)


def _load(path: Path) -> list[answers.Round]:
    with np.load(path) as stored:
        arrays = dict(stored)
    header = json.loads(str(arrays.pop("header")))
    return [dict(one) for one in load_rounds(header, "", arrays)]
