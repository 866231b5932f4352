"""An endpoint in, one round of the canary out: every question asked, every answer handed on."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from introspan_collector.probe.conversation import Asking, Conversation, ProbeError, Reply
from introspan_collector.probe.rows import table
from introspan_collector.suite import DIGEST, QUESTIONS
from introspan_wire import canary
from introspan_wire.codec import SegmentTable


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
    """Asks every question once. deliver takes the model's name and the rows of an answer; what it raises is raised."""
    number, salt = draw(8), draw(16)
    model, answered = target.model, 0
    before: dict[str, Reply] = {}
    conversation = Conversation(target.url, target.api_key, target.timeout_seconds)
    try:
        model = model or _first(conversation)
        for question in QUESTIONS:
            name = canary.CanaryId(DIGEST, question.name, number)
            token = None if target.key is None else canary.token(target.key, name, clock())
            asking = Asking(model, str(name), token, canary.XARG, salt)
            before[question.name] = conversation.ask(question, asking, before)
            deliver(model, table(before[question.name], int(clock() * 1e9)))
            answered += 1
    except ProbeError as error:
        return Result(model, answered, str(error))
    finally:
        conversation.close()
    return Result(model, answered, "")


def _first(conversation: Conversation) -> str:
    models = conversation.models()
    if not models:
        raise ProbeError(f"{conversation.url}/v1/models names no model: give one with --model")
    return models[0]
