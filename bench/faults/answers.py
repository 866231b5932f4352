"""Streams of a batch in, the answers that a canary of the product would have got out.

Generated tokens are the healthy model's, whatever a changed model prefers. The comparison takes nothing from beyond the
first token that differs, so that it finds what it would have found; that token is the changed model's own.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.faults.batch import Text
from bench.faults.forward import Forward, Plan
from introspan.capture.stream.projection import orthogonal_map, project
from introspan.capture.stream.residual import direction
from introspan_collector.detect.canary.answer import STATE_SIZE, Answer, Outputs, States
from introspan_collector.model import Origin
from introspan_collector.suite import DIGEST, QUESTIONS
from introspan_wire.signals import PROJECTION_COMPONENTS, TOP_TOKENS

Round = dict[str, Answer]


def origin(forward: Forward, fingerprint: str, version: str) -> Origin:
    """Who answers: a model behind Hugging Face's forward."""
    config = forward.model.config
    dtype = str(forward.model.dtype).removeprefix("torch.")
    return Origin(
        "bench", "smollm2", "bench", fingerprint, "transformers", version, dtype,
        forward.layer_count, int(config.num_attention_heads), "bench",
    )  # fmt: skip


def answers(forward: Forward, plan: Plan, streams: Sequence[Tensor], source: Origin, number: str) -> Round:
    """One round: streams [rows, d] that enter each layer and the final norm."""
    row = _row_of(plan)
    asked = [question.name for question in QUESTIONS]
    outputs = _outputs(forward, plan.texts, row, streams[-1])
    states = _states(streams, row, plan.texts, asked)
    found = {name: Answer(DIGEST, name, number, 0, source, outputs[name], states[name]) for name in asked}
    short, extended = outputs["short"], outputs["extend"]
    generated = plan.texts["short"].prompt - 1
    # What is asked of the other one's answer is the changed model's answer.
    made = short.token[generated:-1]
    extended.token[generated : generated + len(made)] = made
    return found


def mean_states(rounds: Sequence[Round]) -> Round:
    """The first round with the states of all averaged."""
    found = {}
    for name, first in rounds[0].items():
        states = [one[name].states for one in rounds]
        assert first.states is not None
        values = np.mean([one.values for one in states if one is not None], axis=0)
        nonfinite = sum(one.nonfinite for one in states if one is not None)
        averaged = States(first.states.position, values, nonfinite)
        found[name] = Answer(first.suite, name, first.round, 0, first.origin, first.outputs, averaged)
    return found


def _row_of(plan: Plan) -> dict[str, NDArray[np.int64]]:
    """For each request the row of each position, −1 where it was taken from the cache."""
    found = {name: np.full(len(text.ids), -1) for name, text in plan.texts.items()}
    for step in plan.rows():
        for name, start, end, rows in step:
            found[name][start:end] = np.arange(rows.start, rows.stop)
    return found


def _outputs(
    forward: Forward, texts: Mapping[str, Text], row: Mapping[str, NDArray[np.int64]], stream: Tensor
) -> dict[str, Outputs]:
    # A question read from the cache is answered without log-probabilities of its prompt.
    first = {q.name: texts[q.name].prompt - 1 if q.source == "repeat" else 0 for q in QUESTIONS}
    wanted = np.concatenate([row[name][start:] for name, start in first.items()])
    own = np.concatenate([np.append(texts[name].ids[start + 1 :], -1) for name, start in first.items()])
    generates = np.concatenate(
        [np.arange(start, len(texts[name].ids)) >= texts[name].prompt - 1 for name, start in first.items()]
    )
    at, token, logprob, top, top_logprob = 0, [], [], [], []
    for found in forward.logprobs(stream[torch.from_numpy(wanted)]):
        best = found.topk(TOP_TOKENS)
        rows = slice(at, at + len(found))
        at = rows.stop
        next_token = torch.where(
            torch.from_numpy(generates[rows]), best.indices[:, 0], torch.from_numpy(own[rows])
        )
        token.append(next_token)
        logprob.append(found.gather(1, next_token[:, None])[:, 0])
        top.append(best.indices)
        top_logprob.append(best.values)
    parts = [torch.cat(part).numpy() for part in (token, logprob, top, top_logprob)]
    made, at = {}, 0
    for name, start in first.items():
        positions = np.arange(start, len(texts[name].ids))
        rows = slice(at, at + len(positions))
        at = rows.stop
        made[name] = Outputs(
            texts[name].prompt,
            positions,
            parts[0][rows].copy(),
            parts[1][rows],
            parts[2][rows].astype(np.int32),
            parts[3][rows],
        )
    return made


def _states(
    streams: Sequence[Tensor],
    row: Mapping[str, NDArray[np.int64]],
    texts: Mapping[str, Text],
    asked: Sequence[str],
) -> dict[str, States]:
    """States at the last prompt token and the last generated one, which are all that is compared."""
    position = {name: np.array([texts[name].prompt - 1, len(texts[name].ids) - 1]) for name in asked}
    rows = torch.from_numpy(np.concatenate([row[name][position[name]] for name in asked]))
    found = direction(torch.stack([stream[rows] for stream in streams], dim=1))
    size = streams[0].shape[1]
    values = np.empty((len(rows), len(streams), STATE_SIZE), np.float32)
    values[..., :-1] = project(found.unit, torch.from_numpy(orthogonal_map(size))).numpy()
    log_rms = found.norm.log() + found.peak.log() - 0.5 * math.log(size)
    values[..., -1] = np.sqrt(np.float32(PROJECTION_COMPONENTS)) * log_rms.numpy()
    nonfinite = found.nonfinite.numpy().sum(axis=1)
    return {
        name: States(position[name], values[2 * i : 2 * i + 2], int(nonfinite[2 * i : 2 * i + 2].sum()))
        for i, name in enumerate(asked)
    }
