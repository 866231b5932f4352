"""Tokens of a text in, requests that run beside a question out, so that the batch is another one each time."""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace

from introspan_collector.probe.conversation import Asking, Conversation
from introspan_collector.suite import GENERATED_TOKENS

_MOST = 3
_LONGEST = 64


class Company:
    """What is generated beside the questions of one round. asking: how to ask for so many more tokens of a text."""

    def __init__(
        self, conversation: Conversation, asking: Callable[[Sequence[int], int], Asking], seed: str
    ) -> None:
        self._conversation = conversation
        self._asking = asking
        self._drawn = random.Random(seed)  # noqa: S311 no secret
        self._pool = ThreadPoolExecutor(_MOST, "introspan-canary-beside")

    @contextmanager
    def of(self, text: Sequence[int]) -> Iterator[None]:
        """None to three others while it lasts, each a piece of the text; none where there is no text."""
        others = [self._begin(text) for _ in range(self._drawn.randrange(_MOST + 1))] if text else []
        yield
        # Whether they were answered makes no difference: a server that does not says so to the questions.
        wait(others)

    def _begin(self, text: Sequence[int]) -> Future[None]:
        first = self._drawn.randrange(max(len(text) - 1, 1))
        piece = text[first : first + self._drawn.randrange(1, _LONGEST)]
        tokens = self._drawn.randrange(1, 2 * GENERATED_TOKENS)
        asking = replace(self._asking(piece, tokens), cache_salt=f"{self._drawn.getrandbits(64):016x}")
        return self._pool.submit(self._conversation.beside, piece, asking)

    def close(self) -> None:
        """Waits for none of them."""
        self._pool.shutdown(wait=False, cancel_futures=True)
