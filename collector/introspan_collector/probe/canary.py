"""An endpoint in, one round of the canary out: every question asked, every answer handed on."""

import random
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass

from introspan_collector.probe.conversation import Asking, Conversation, ProbeError, Reply
from introspan_collector.probe.rows import table
from introspan_collector.suite import BESIDE, BESIDE_TEXT, DIGEST, GENERATED_TOKENS, QUESTIONS
from introspan_wire import canary
from introspan_wire.codec import SegmentTable

_MOST_BESIDE = 3


@dataclass(frozen=True, slots=True)
class Result:
    """One round: how many questions were answered, and the error that ended it early, "" for none."""

    model: str
    answered: int
    error: str


@dataclass(frozen=True, slots=True)
class Target:
    """A server to ask. model: the name it serves, "" for its first; key: shared with its workers, None for none."""

    url: str
    model: str = ""
    api_key: str | None = None
    key: bytes | None = None
    timeout_seconds: float = 30.0


def ask(
    target: Target,
    deliver: Callable[[str, SegmentTable], None],
    clock: Callable[[], float] = time.time,
    draw: Callable[[int], str] = secrets.token_hex,
) -> Result:
    """Asks every question once. deliver takes the model's name and the rows of an answer; what it raises is raised.

    Beside each up to three other texts are generated, so that a baseline knows how the batch changes rounding; but
    only with the key, without which they would count as traffic.
    """
    number, salt = draw(8), draw(16)
    model, answered = target.model, 0
    before: dict[str, Reply] = {}
    try:
        conversation = Conversation(target.url, target.api_key, target.timeout_seconds)
    except ProbeError as error:
        return Result(model, 0, str(error))
    company = _Company(conversation, target, salt)
    try:
        model = model or _first(conversation)
        for question in QUESTIONS:
            name = canary.CanaryId(DIGEST, question.name, number)
            token = None if target.key is None else canary.token(target.key, name, clock())
            asking = Asking(model, str(name), token, canary.XARG, salt)
            with company.of(model, number, clock()):
                before[question.name] = conversation.ask(question, asking, before)
            deliver(model, table(before[question.name], int(clock() * 1e9)))
            answered += 1
    except ProbeError as error:
        return Result(model, answered, str(error))
    finally:
        company.close()
        conversation.close()
    return Result(model, answered, "")


class _Company:
    """What is generated beside the questions of one round."""

    def __init__(self, conversation: Conversation, target: Target, salt: str) -> None:
        self._conversation = conversation
        self._key = target.key
        self._drawn = random.Random(salt)  # noqa: S311 no secret
        self._pool = ThreadPoolExecutor(_MOST_BESIDE, "introspan-canary-beside")

    @contextmanager
    def of(self, model: str, number: str, now: float) -> Iterator[None]:
        """None to three others while it lasts."""
        count = 0 if self._key is None else self._drawn.randrange(_MOST_BESIDE + 1)
        others = [self._begin(model, number, now) for _ in range(count)]
        yield
        # Whether they were answered makes no difference: a server that does not says so to the questions.
        wait(others)

    def _begin(self, model: str, number: str, now: float) -> Future[None]:
        assert self._key is not None
        name = canary.CanaryId(DIGEST, BESIDE, number)
        token = canary.token(self._key, name, now)
        words = BESIDE_TEXT.split(" ")
        first = self._drawn.randrange(len(words) - 1)
        text = " ".join(words[first : first + self._drawn.randrange(1, 64)])
        asking = Asking(model, str(name), token, canary.XARG, f"{self._drawn.getrandbits(64):016x}")
        tokens = self._drawn.randrange(1, 2 * GENERATED_TOKENS)
        return self._pool.submit(self._conversation.beside, text, asking, tokens)

    def close(self) -> None:
        """Waits for none of them."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _first(conversation: Conversation) -> str:
    models = conversation.models()
    if not models:
        raise ProbeError(f"{conversation.url}/v1/models names no model: give one with --model")
    return models[0]
