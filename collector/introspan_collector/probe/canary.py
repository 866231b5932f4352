"""An endpoint in, rounds of the canary at each of its engines out: every question asked, every answer handed on."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from introspan_collector.probe.company import Company
from introspan_collector.probe.conversation import (
    Asking,
    Conversation,
    ProbeError,
    Reply,
    made_of,
)
from introspan_collector.probe.rows import table
from introspan_collector.suite import BESIDE, BESIDE_TEXT, DIGEST, GENERATED_TOKENS, QUESTIONS
from introspan_wire import canary
from introspan_wire.codec import SegmentTable

Deliver = Callable[[str, int | None, SegmentTable], None]
"""Takes the model's name, the rank that was asked (None where there is one), and the rows of an answer."""

_RANKS_AGAIN = 60
"""Rounds after which the server is asked anew how many engines it has: it may have been given more."""


@dataclass(frozen=True, slots=True)
class Result:
    """One round: how many questions were answered, and the error that ended it early, "" for none."""

    model: str
    answered: int
    error: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A server to ask. model: the name it serves, "" for its first; key: shared with its workers, None for none."""

    url: str
    model: str = ""
    api_key: str | None = None
    key: bytes | None = None
    timeout_seconds: float = 30.0


class Asker:
    """Asks one server round after round, each of its data-parallel engines in turn.

    What deliver raises is raised. Beside each question up to three other texts are generated, so that a baseline
    knows how the batch changes rounding; but only with the key, without which they would count as traffic.
    """

    def __init__(
        self,
        target: Target,
        deliver: Deliver,
        clock: Callable[[], float] = time.time,
        draw: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self._target = target
        self._deliver = deliver
        self._clock = clock
        self._draw = draw
        self._learnt: dict[str, tuple[int, ...]] = {}
        self._rounds = 0
        self.ranks = 0
        """Engines behind the address; 0 while that is not known."""

    def ask(self) -> list[Result]:
        """Asks every question once of each engine; one that fails keeps no other from being asked."""
        target = self._target
        try:
            conversation = Conversation(target.url, target.api_key, target.timeout_seconds)
        except ProbeError as error:
            return [Result(target.model, 0, str(error))]
        model = target.model
        try:
            model = model or _first(conversation)
            if not self.ranks or self._rounds % _RANKS_AGAIN == 0:
                self.ranks = conversation.ranks(model)
            ranks = [None] if self.ranks == 1 else list(range(self.ranks))
            told = self._tokens(conversation, model)
            results = [self._round(conversation, model, rank, told) for rank in ranks]
        except ProbeError as error:
            results = [Result(model, 0, str(error))]
        finally:
            conversation.close()
        self._rounds += 1
        if any(one.error for one in results):
            self.ranks = 0  # it may have been started anew with others
        return results

    def _round(
        self, conversation: Conversation, model: str, rank: int | None, told: dict[str, tuple[int, ...]]
    ) -> Result:
        number, salt, answered = self._draw(8), self._draw(16), 0
        before: dict[str, Reply] = {}

        def asking(question: str, ids: Sequence[int], tokens: int = GENERATED_TOKENS) -> Asking:
            name = canary.CanaryId(DIGEST, question, number)
            return Asking(model, str(name), self._token(name, ids, tokens), canary.XARG, salt, rank, tokens)

        company = Company(conversation, partial(asking, BESIDE), salt)
        try:
            for question in QUESTIONS:
                ids = made_of(question, before) if question.of else told.get(question.name, ())
                with company.of(told.get(_BESIDE.name, ())):
                    reply = conversation.ask(question, asking(question.name, ids), before)
                before[question.name] = reply
                self._learnt[question.name] = reply.prompt
                self._deliver(model, rank, table(reply, int(self._clock() * 1e9)))
                answered += 1
        except ProbeError as error:
            who = "" if rank is None else f"data-parallel rank {rank}: "
            return Result(model, answered, f"{who}{error}", rank)
        finally:
            company.close()
        return Result(model, answered, "", rank)

    def _token(self, name: canary.CanaryId, ids: Sequence[int], tokens: int) -> str | None:
        """Says that a request is ours; None without a key, or where the tokens of its text are not known."""
        key = self._target.key
        if key is None or not ids:
            return None
        return canary.token(key, name, ids, tokens, self._clock(), self._draw(canary.NONCE_BYTES))

    def _tokens(self, conversation: Conversation, model: str) -> dict[str, tuple[int, ...]]:
        """The tokens of questions of text and chat, which a canary's token is bound to; without a key none."""
        if self._target.key is None:
            return {}
        found: dict[str, tuple[int, ...]] = {}
        for question in (question for question in QUESTIONS if not question.of):
            told = conversation.tokens(model, question)
            # A server that does not say them answers with them: they are known from the second round on.
            found[question.name] = self._learnt.get(question.name, ()) if told is None else told
        return found


_BESIDE = next(question for question in QUESTIONS if question.text == BESIDE_TEXT)


def _first(conversation: Conversation) -> str:
    models = conversation.models()
    if not models:
        raise ProbeError(f"{conversation.url}/v1/models names no model: give one with --model")
    return models[0]
