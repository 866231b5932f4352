"""Sampling parameters of a request in; what ends it out."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ending:
    """What ends a request: one of these tokens, or the token of the row at this position, whatever it is."""

    tokens: frozenset[int]
    position: int


# Any: vLLM's SamplingParams.
def ending_of(params: Any, prompt_tokens: int, max_model_len: int) -> Ending:
    """The same that vLLM's `check_stop` looks at, but for its detection of repetition.

    The row at position p draws the token behind it, after which p + 2 tokens are there, of which all but the prompt's
    count against max_tokens.
    """
    tokens = {*(params.stop_token_ids or ()), params.eos_token_id} - {None}
    generated = max_model_len if params.max_tokens is None else params.max_tokens
    return Ending(frozenset(tokens), min(prompt_tokens + generated, max_model_len) - 2)
