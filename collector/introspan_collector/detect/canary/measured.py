"""An answer in; the numbers of it that are compared out."""

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary.answer import STATE_SIZE, Answer, Outputs


def outputs_of(outputs: Outputs, top_token: NDArray[np.int32]) -> NDArray[np.float64]:
    """Log-probabilities [n, 21] of the own token and of the given top tokens [n, 20], NaN where they are not known."""
    n = min(len(outputs.token), len(top_token))
    same = outputs.top_token[:n, None, :] == top_token[:n, :, None]
    known = same.any(axis=2) & (top_token[:n] >= 0)
    at = same.argmax(axis=2)
    top = np.where(known, np.take_along_axis(outputs.top_logprob[:n], at, axis=1), np.nan)
    found: NDArray[np.float64] = np.concatenate([outputs.logprob[:n, None], top], axis=1, dtype=np.float64)
    return found


def states_of(answer: Answer, depth: int) -> NDArray[np.float64]:
    """States [2, depth, 33] at the last prompt token and the last generated one, NaN where not measured."""
    found = np.full((2, depth, STATE_SIZE), np.nan)
    if answer.states is not None and answer.states.values.shape[1] == depth:
        for row, position in enumerate((answer.outputs.prompt_tokens - 1, answer.outputs.position[-1])):
            at = np.flatnonzero(answer.states.position == position)
            if at.size:
                found[row] = answer.states.values[at[0]]
    return found
