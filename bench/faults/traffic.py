"""Texts and a tokenizer in, named sets of requests out: the healthy mixture, and what each fault of traffic sends.

A set is asked of one engine in one go. Sets of one kind differ in texts only, so that what is chosen on one family can
be reported on another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.faults import texts
from bench.faults.texts import Text

PROMPT_TOKENS = 64
ANSWER_TOKENS = 6
SAMPLED_TOKENS = 16
CHUNK = 100
"""Requests of a set."""

STRATA: dict[str, Callable[[], list[Text]]] = {
    "claims": texts.claims,
    "passages": texts.passages,
    "questions": texts.questions,
    "instructions": texts.instructions,
    "exams": texts.exams,
}
_SEED = 7


@dataclass(frozen=True, slots=True)
class Call:
    """One request: token ids, tokens wanted, temperature."""

    ids: list[int]
    answer_tokens: int
    temperature: float


@dataclass(frozen=True, slots=True)
class Set:
    """Requests that are asked together. fault: what is done to the engine meanwhile, "" for nothing.

    perplexity: whether log-probabilities of the prompt are wanted, which a perplexity filter needs.
    """

    name: str
    family: str
    calls: Callable[[], list[Call]]
    fault: str = ""
    perplexity: bool = False


# Any: a tokenizer of transformers, which is untyped.
class Traffic:
    """Makes requests of texts as a server's clients and templates do."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def sets(self) -> Iterator[Set]:
        """Every set, the most wanted first."""
        for part in range(3):
            for name in STRATA:
                yield self._healthy(name, part)
            if part == 0:
                yield from self._content()
                yield from self._sampler()
                yield from self._cache()
                yield from self._templates()

    def _healthy(self, name: str, part: int) -> Set:
        # The last of the smaller packages' texts are used up earlier.
        def calls() -> list[Call]:
            chosen = texts.drawn(STRATA[name](), len(STRATA[name]()), _SEED)
            return [self._call(text) for text in chosen[part * CHUNK : (part + 1) * CHUNK]]

        return Set(f"healthy-{name}-{part}", f"healthy: {name}", calls, perplexity=True)

    def _content(self) -> Iterator[Set]:
        def plain(name: str, family: str, source: Callable[[], list[Text]], count: int) -> Set:
            return Set(
                name,
                family,
                lambda: [self._call(text) for text in texts.drawn(source(), count, _SEED)],
                perplexity=True,
            )

        yield plain("code", "code", texts.programs, 100)
        yield plain("suffix", "adversarial suffix", texts.suffixed, 100)
        for language in texts.LANGUAGES:
            yield plain(f"language-{language}", "language", lambda l=language: texts.exams_in(l), 50)
        for encoding in texts.ENCODINGS:
            yield plain(f"encoding-{encoding}", "encoding", lambda e=encoding: texts.encoded(e), 50)
        yield plain("lookalikes", "benign look-alikes", texts.lookalikes, 50)

    def _sampler(self) -> Iterator[Set]:
        def long(name: str) -> list[Call]:
            chosen = texts.drawn(texts.questions() + texts.passages(), 400, _SEED + 1)[300:]
            temperature = 0.0 if name == "greedy" else 1.0
            return [self._call(text, SAMPLED_TOKENS, temperature) for text in chosen]

        for name in ("temperature-1.5", "temperature-1.1", "greedy", "sampler-healthy"):
            fault = "" if name == "sampler-healthy" else name
            yield Set(name, "sampler", lambda n=name: long(n), fault)

    def _cache(self) -> Iterator[Set]:
        def calls() -> list[Call]:
            chosen = texts.drawn(texts.passages(), 400, _SEED)[300:]
            return [self._call(text) for text in chosen if len(self._ids(text)) >= 34]

        for name in ("kv-healthy", "kv-swapped", "kv-stale", "kv-scaled"):
            yield Set(name, "KV cache", calls, "" if name == "kv-healthy" else name)

    def _templates(self) -> Iterator[Set]:
        def calls(change: Callable[[Text], list[int]]) -> list[Call]:
            chosen = (
                texts.drawn(texts.questions(), 400, _SEED)[300:]
                + texts.drawn(texts.instructions(), 400, _SEED)[300:350]
            )
            return [Call(change(text), ANSWER_TOKENS, 1.0) for text in chosen]

        for name, change in {
            "double BOS": lambda text: [self._tokenizer.bos_token_id, *self._ids(text)],
            "no template": lambda text: self._tokenizer(text.content).input_ids[:PROMPT_TOKENS],
            "system prompt dropped": lambda text: self._chat(text.content, system=False),
            "other tokenizer": lambda text: self._characters(text),
        }.items():
            yield Set(f"template-{name.replace(' ', '-')}", f"template: {name}", lambda c=change: calls(c))

    def _call(self, text: Text, answer_tokens: int = ANSWER_TOKENS, temperature: float = 1.0) -> Call:
        return Call(self._ids(text), answer_tokens, temperature)

    def _ids(self, text: Text) -> list[int]:
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
