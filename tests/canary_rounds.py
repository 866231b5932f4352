"""A made-up model with layers that can be damaged in; rounds of canary answers as the collector sees them out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from introspan_collector.detect.canary.answer import Answer, Outputs, States
from introspan_collector.model import Batch, Origin
from introspan_collector.probe.conversation import Reply
from introspan_collector.probe.rows import table
from introspan_collector.suite import DIGEST, GENERATED_TOKENS, QUESTIONS
from introspan_wire.canary import SIGNED, CanaryId
from introspan_wire.codec import Column, Schema, SegmentTable
from introspan_wire.signals import Kind, Statistic

LAYERS, D, VOCABULARY, PROMPT = 12, 96, 200, 6
ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-9}


@dataclass(frozen=True)
class Fault:
    """What is wrong: a layer whose output is scaled, noise on the embedding or the head, another text."""

    layer: int = -1
    scale: float = 1.0
    embedding: float = 0.0
    head: float = 0.0
    text: int = 0
    nonfinite_from: int = 1_000
    cache: float = 0.0


HEALTHY = Fault()


class Model:
    """Residual layers of random weights whose rounding is drawn anew each time, as another batch would round."""

    def __init__(
        self, dtype: str = "float32", layers: int = LAYERS, seed: int = 0, fingerprint: str = "f00d"
    ):
        rng = np.random.default_rng(seed)
        self.layers = layers
        self.origin = Origin("vllm", "m", "r0", fingerprint, "vllm", "0.32.0", dtype, layers, 4, "0.1.0")
        self._into = rng.normal(size=(layers, D, D)) / np.sqrt(D)
        self._out = 0.5 * rng.normal(size=(layers, D, D)) / np.sqrt(D)
        self._head = rng.normal(size=(VOCABULARY, D)) * 2.0 / np.sqrt(D)
        self._map = np.linalg.qr(rng.normal(size=(D, 32)))[0].T
        texts = np.random.default_rng(99)
        self._texts = {
            question.name: (
                texts.normal(size=(PROMPT + 2 * GENERATED_TOKENS, D)),
                texts.integers(0, VOCABULARY, PROMPT),
            )
            for question in QUESTIONS
        }

    def round(
        self, rng: np.random.Generator, number: int = 1, fault: Fault = HEALTHY, *, noise: float = 1.0
    ) -> dict[str, Answer]:
        """One round. noise: of its rounding, 0 for answers that are equal to the last bit."""
        found: dict[str, Answer] = {}
        for question in QUESTIONS:
            earlier = found.get(question.of)
            vectors, prompt = self._texts[question.of or question.name]
            if question.source == "extend":
                assert earlier is not None
                prompt = np.concatenate([prompt, earlier.outputs.token[-GENERATED_TOKENS:-1]])
            if fault.text:
                prompt = np.concatenate([np.full(fault.text, 7), prompt])
            last = len(prompt) - 1
            rows = vectors[: last + GENERATED_TOKENS]
            cache = fault.cache if question.source == "repeat" else 0.0
            states, logits = self._forward(rows, rng, fault, noise, cache)
            first = last if question.source == "repeat" else 0
            found[question.name] = self._answer(question.name, number, prompt, states[last:], logits, first)
        return found

    def _forward(self, rows: np.ndarray, rng: Any, fault: Fault, noise: float, cache: float):
        unit = noise * ROUNDING[self.origin.dtype]

        def rounded(h: np.ndarray) -> np.ndarray:
            return h + unit * _rms(h) * rng.normal(size=h.shape)

        damage = np.random.default_rng(5)
        h = rows * (1 + fault.embedding * damage.normal(size=D))
        states = [h := rounded(h)]
        for layer in range(self.layers):
            added = np.tanh((h / _rms(h)) @ self._into[layer].T) @ self._out[layer].T
            added = added * (1 + cache * (layer >= 3)) * (fault.scale if layer == fault.layer else 1.0)
            states.append(h := rounded(h + added))
        head = self._head * (1 + fault.head * damage.normal(size=self._head.shape))
        stacked = np.stack(states, axis=1)
        stacked[:, fault.nonfinite_from :] = np.nan
        return stacked, rounded((h / _rms(h)) @ head.T)

    def _answer(
        self, name: str, number: int, prompt: np.ndarray, states: np.ndarray, logits: np.ndarray, first: int
    ) -> Answer:
        logits = logits[first:]
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        ranked = np.argsort(-logprobs, axis=1)[:, :20]
        generated = ranked[-GENERATED_TOKENS:, 0]
        token = np.concatenate([prompt[first + 1 :], generated])
        position = np.arange(first, first + len(token))
        values = np.concatenate(
            [(states / _rms(states)) @ self._map.T, np.sqrt(32) * np.log(_rms(states))], axis=2
        )
        return Answer(
            DIGEST,
            name,
            f"{number:016x}",
            10**9 * number,
            self.origin,
            Outputs(
                len(prompt),
                position,
                token.astype(np.int64),
                np.take_along_axis(logprobs, token[:, None], 1)[:, 0].astype(np.float32),
                ranked.astype(np.int32),
                np.take_along_axis(logprobs, ranked, 1).astype(np.float32),
            ),
            States(
                position[-GENERATED_TOKENS:], values.astype(np.float32), int(np.isnan(values[..., 0]).sum())
            ),
        )

    def rounds(self, count: int, seed: int = 1, **how: Any) -> list[dict[str, Answer]]:
        rng = np.random.default_rng(seed)
        return [self.round(rng, 1 + i, **how) for i in range(count)]


def _rms(h: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(h**2, axis=-1, keepdims=True))


def without_states(answers: Mapping[str, Answer], replica: str = "http://vllm:8000") -> dict[str, Answer]:
    """A round as whoever asked saw it: nothing of the inside, and not whose answers they are."""
    origin = Origin("introspan-canary", "m", replica, "", "", "", "", 0, 0, "")
    return {name: replace(answer, states=None, origin=origin) for name, answer in answers.items()}


ADDRESS = "http://vllm:8000"


def output_batch(answer: Answer, now: float, asked: str = ADDRESS, *, signed: bool = True) -> Batch:
    """The half of an answer that whoever asked sends."""
    outputs = answer.outputs
    likely = tuple(
        dict(zip(tokens, logprobs, strict=True)) | {own: logprob}
        for tokens, logprobs, own, logprob in zip(
            outputs.top_token.tolist(), outputs.top_logprob.tolist(), outputs.token.tolist(),
            outputs.logprob.tolist(), strict=True,
        )
    )  # fmt: skip
    first = int(outputs.position[0])
    prompt = (*(0,) * (first + 1), *outputs.token.tolist())[: outputs.prompt_tokens]
    generated = tuple(outputs.token.tolist()[outputs.prompt_tokens - 1 - first :])
    reply = Reply(f"cmpl-{_id(answer)}-0", prompt, generated, first, likely)
    attributes = ((SIGNED, "true"),) if signed else ()
    origin = Origin("introspan-canary", "m", asked, "", "", "", "", 0, 0, "", attributes=attributes)
    return _batch(origin, table(reply, int(now * 1e9)), now)


def state_batch(answer: Answer, now: float, rows: slice = slice(None)) -> Batch:
    """The half of an answer that the engine's worker sends, or some of its rows."""
    states = answer.states
    assert states is not None
    position, values = states.position[rows], states.values[rows]
    depth, n = values.shape[1], len(position)
    schema = Schema(
        Kind.CANARY,
        (
            *(
                Column("residual.projection", Statistic.LAST, layer, component=i)
                for layer in range(depth)
                for i in range(32)
            ),
            *(Column("residual.log_rms", Statistic.LAST, layer) for layer in range(depth)),
            *(Column("residual.nonfinite", Statistic.LAST, layer) for layer in range(depth)),
        ),
    )
    flat = np.concatenate(
        [
            values[..., :-1].reshape(n, -1),
            values[..., -1] / np.sqrt(32),
            np.isnan(values[..., 0]).astype(np.float32),
        ],
        axis=1,
    )
    same = lambda value: np.full(n, value, np.uint32)  # noqa: E731 - a row's constant fields
    found = SegmentTable(
        schema, [f"cmpl-{_id(answer)}-0"] * n, np.zeros((n, 16), np.uint8), np.zeros((n, 8), np.uint8),
        np.zeros(n, np.uint64), [""] * n, np.arange(n, dtype=np.uint32), position.astype(np.uint32), same(1),
        same(1), same(answer.outputs.prompt_tokens), same(0), np.full(n, int(now * 1e9), np.uint64),
        np.ones(n, np.float32), flat.astype(np.float32),
    )  # fmt: skip
    return _batch(answer.origin, found, now)


def _id(answer: Answer) -> CanaryId:
    return CanaryId(answer.suite, answer.prompt, answer.round)


def _batch(origin: Origin, found: SegmentTable, now: float) -> Batch:
    return Batch(0, 1, int(now * 1e9), b"c" * 16, 1, origin, (), None, (found,))
