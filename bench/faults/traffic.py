"""Texts and a tokenizer in, named sets of requests out: the healthy mixture, and what each fault of traffic sends.

A set is asked of one engine in one go. Sets of one kind differ in texts only, so that what is chosen on one family can
be reported on another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.faults import texts
from bench.faults.fourth_protocol import FOURTH
from bench.faults.texts import Text
from bench.faults.third_protocol import THIRD
from bench.faults.traffic_protocol import TRAFFIC

PROMPT_TOKENS = 64
ANSWER_TOKENS = 6
SAMPLED_TOKENS = 12
CHUNK = 100
"""Requests of a healthy set."""

PARTS = 10
"""Healthy sets of a stratum, as far as its texts go."""

FAULTY = 48
FEW = 32
"""Requests of a set of faults, and of one of many of a kind."""

_APART = 64
"""Texts of a stratum that are in no healthy set: faults of template, cache and sampler take theirs from them."""

STRATA: dict[str, Callable[[], list[Text]]] = {
    "claims": texts.claims,
    "passages": texts.passages,
    "questions": texts.questions,
    "instructions": texts.instructions,
    "exams": texts.exams,
}
_SEED = 7
_LOOP = THIRD["loop"]
_ENGINES = FOURTH["by_traffic"]
LOOPING = f"loop-{_LOOP['period']}"
"""The set whose answers loop, and what is done to the sampler meanwhile."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request: token ids, tokens wanted, temperature."""

    ids: list[int]
    answer_tokens: int
    temperature: float


@dataclass(frozen=True, slots=True)
class Set:
    """Requests that are asked together. fault: what is done to the engine meanwhile, "" for nothing.

    perplexity: whether log-probabilities of the prompt are wanted, which a perplexity filter needs; is_apart: whether
    each request is asked when the one before is answered.
    """

    name: str
    family: str
    calls: Callable[[], list[Call]]
    fault: str = ""
    perplexity: bool = False
    is_apart: bool = False


# Any: a tokenizer of transformers, which is untyped.
class Traffic:
    """Makes requests of texts as a server's clients and templates do."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def sets(self) -> Iterator[Set]:
        """Every set, the most wanted first."""
        for part in range(PARTS):
            for name in STRATA:
                wanted = self._healthy(name, part)
                if wanted.calls():
                    yield wanted
            if part == 0:
                yield from self._cache()
                yield from self._content()
                yield from self._templates()
                yield from self._sampler()
                yield self._loops()
                yield from self._engines()
                yield from self._again()

    def _healthy(self, name: str, part: int) -> Set:
        def calls() -> list[Call]:
            chosen = _shuffled(STRATA[name]())[:-_APART]
            return [self._call(text) for text in chosen[part * CHUNK : (part + 1) * CHUNK]]

        return Set(f"healthy-{name}-{part}", f"healthy: {name}", calls, perplexity=True)

    def _content(self) -> Iterator[Set]:
        def plain(name: str, family: str, source: Callable[[], list[Text]], count: int) -> Set:
            def calls() -> list[Call]:
                return [self._call(text) for text in _shuffled(source())[:count]]

            return Set(name, family, calls, perplexity=True)

        for language in texts.LANGUAGES:
            yield plain(f"language-{language}", "language", partial(texts.exams_in, language), FEW)
        yield plain("code", "code", texts.programs, FAULTY)
        for encoding in texts.ENCODINGS:
            yield plain(f"encoding-{encoding}", "encoding", partial(texts.encoded, encoding), FEW)
        yield plain("suffix", "adversarial suffix", texts.suffixed, FAULTY)
        yield plain("lookalikes", "benign look-alikes", texts.lookalikes, FEW)

    def _sampler(self) -> Iterator[Set]:
        def calls(temperature: float) -> list[Call]:
            asked = _shuffled(texts.questions())[-FEW // 2 :]
            chosen = [*asked, *_shuffled(texts.passages())[-FEW // 2 :]]
            return [self._call(text, SAMPLED_TOKENS, temperature) for text in chosen]

        yield Set("sampler-greedy", "sampler", partial(calls, 0.0), "greedy")
        for name in ("temperature-1.5", "temperature-1.1", ""):
            yield Set(f"sampler-{name or 'healthy'}", "sampler", partial(calls, 1.0), name)

    def _loops(self) -> Set:
        """Answers that are the same few tokens over and over, whatever was asked."""

        def calls() -> list[Call]:
            asked = _shuffled(texts.questions())[-_LOOP["requests"] :]
            return [self._call(text, _LOOP["answer_tokens"], 0.0) for text in asked]

        return Set(LOOPING, "repetition loop", calls, LOOPING)

    def _engines(self) -> Iterator[Set]:
        """Healthy requests to an engine whose positions are wrong."""

        def calls() -> list[Call]:
            first = (self._healthy(name, 0).calls()[: _ENGINES["requests_a_stratum"]] for name in STRATA)
            return [call for some in first for call in some]

        for name in _ENGINES["faults"].values():
            yield Set(name, "positions", calls, name)

    def _again(self) -> Iterator[Set]:
        """Healthy sets under other conditions of the engine."""
        for condition in ("cached", "chunked", "alone"):
            for name in TRAFFIC["again"]:
                first = self._healthy(name, 0)
                yield Set(f"again-{condition}-{name}", "again", first.calls, condition)

    def _cache(self) -> Iterator[Set]:
        def calls() -> list[Call]:
            apart = _shuffled(texts.passages())[PARTS * CHUNK :]
            # Two blocks of the cache are what is exchanged.
            whole = [text for text in apart if len(self.ids(text)) == PROMPT_TOKENS]
            return [self._call(text) for text in whole[:FAULTY]]

        for name in ("kv-healthy", "kv-swapped", "kv-stale", "kv-scaled", "kv-foreign"):
            yield Set(name, "KV cache", calls, "" if name == "kv-healthy" else name)

    def _templates(self) -> Iterator[Set]:
        def calls(change: Callable[[Text], list[int]]) -> list[Call]:
            asked = _shuffled(texts.questions())[-FEW // 2 :]
            chosen = [*asked, *_shuffled(texts.instructions())[-FEW // 2 :]]
            return [Call(change(text), ANSWER_TOKENS, 1.0) for text in chosen]

        changes: dict[str, Callable[[Text], list[int]]] = {
            "double BOS": lambda text: [self._tokenizer.bos_token_id, *self.ids(text)],
            "no template": lambda text: self._tokenizer(text.content).input_ids[:PROMPT_TOKENS],
            "system prompt dropped": lambda text: self._chat(text.content, system=False),
            "other tokenizer": self._characters,
        }
        for name, change in changes.items():
            yield Set(f"template-{name.replace(' ', '-')}", f"template: {name}", partial(calls, change))

    def _call(self, text: Text, answer_tokens: int = ANSWER_TOKENS, temperature: float = 1.0) -> Call:
        return Call(self.ids(text), answer_tokens, temperature)

    def ids(self, text: Text) -> list[int]:
        """Token ids of a text: as its beginning, or as a message in the chat template."""
        if text.is_chat:
            return self._chat(text.content)
        return list(self._tokenizer(text.content).input_ids)[:PROMPT_TOKENS]

    def _chat(self, content: str, *, system: bool = True) -> list[int]:
        said = self._tokenizer.decode(self._tokenizer(content).input_ids[:PROMPT_TOKENS])
        messages = [{"role": "user", "content": said}]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if not system:
            text = text[text.index("<|im_start|>user") :]
        return list(self._tokenizer(text).input_ids)

    def _characters(self, text: Text) -> list[int]:
        """Content cut into characters: a tokenizer whose merges were lost."""
        whole = self._chat("\x00")
        hole = self._tokenizer("\x00").input_ids
        at = next(i for i in range(len(whole)) if whole[i : i + len(hole)] == hole)
        content = [token for one in text.content[:PROMPT_TOKENS] for token in self._tokenizer(one).input_ids]
        return [*whole[:at], *content, *whole[at + len(hole) :]]


def _shuffled(chosen: list[Text]) -> list[Text]:
    return texts.drawn(chosen, len(chosen), _SEED)
