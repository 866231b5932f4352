"""A prepared model and a dtype in, rounds of the canary out: of the healthy model, and of what was done to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

from bench.faults import answers, questions
from bench.faults.batch import Text, neighbour, steps
from bench.faults.forward import Forward, Plan, Spoil
from bench.faults.protocol import PROTOCOL
from bench.faults.weights import Change, changed, healthy_weights

_CHANGED = 2000


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rounds of a change; is_other: whether any weight differs from the healthy model's."""

    rounds: list[answers.Round]
    is_other: bool


class Subject:
    """One model in one dtype."""

    def __init__(self, model: Path, dtype: str) -> None:
        full = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.healthy = healthy_weights(full)
        self.model = full.to(getattr(torch, dtype)).eval()
        # Any: transformers leaves its tokenizers untyped.
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        self.forward = Forward(self.model)
        self.tokenization = questions.of_model(self.tokenizer)
        self.asked = questions.prompts(self.tokenization)
        self.generated = questions.answered(self.model, self.asked)
        self._origin = answers.origin(self.forward, "healthy", transformers.__version__)
        self._clean: dict[int, list[Tensor]] = {}

    def plan(self, draw: int, texts: Mapping[str, Text] | None = None) -> Plan:
        """The suite in the batch composition of a draw."""
        asked = questions.requests(self.asked, self.generated) if texts is None else texts
        beside = neighbour(int(self.model.config.vocab_size), draw)
        together = {**asked, "neighbour": beside}
        return Plan(together, steps(together, draw))

    def round(self, draw: int, spoil: Spoil | None = None) -> answers.Round:
        """A round of the model as it is; spoil: what is done to the cache that a prefix is taken from."""
        plan = replace(self.plan(draw), spoil=spoil)
        return self._answers(plan, self.forward.streams(plan))

    def changed_in(self, change: Change, draws: Sequence[int]) -> Drawn:
        """Rounds of a model with a change in the batch compositions of these draws, computed from the embedding on."""
        with changed(self.model, self.healthy, change) as is_other:
            drawn = [self.round(draw) for draw in draws]
        return Drawn(drawn, is_other)

    def changed(self, change: Change, trial: int, rounds: int) -> Drawn:
        """Rounds of a model with a change, in a few compositions for which the healthy streams are kept."""
        draws = [self._draw(trial + i) for i in range(rounds)]
        if change.layer is not None:
            # Before any weight is changed.
            for draw in set(draws) - self._clean.keys():
                self._clean[draw] = self.forward.streams(self.plan(draw))
        with changed(self.model, self.healthy, change) as is_other:
            drawn = [self._changed_round(change, draw) for draw in draws]
        return Drawn(drawn, is_other)

    def asked_otherwise(self, plan: Callable[[int], Plan], trial: int, rounds: int) -> list[answers.Round]:
        """Rounds of other texts or positions: plan takes the draw's number."""
        plans = [plan(self._draw(trial + i)) for i in range(rounds)]
        return [self._answers(made, self.forward.streams(made)) for made in plans]

    def _changed_round(self, change: Change, draw: int) -> answers.Round:
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
