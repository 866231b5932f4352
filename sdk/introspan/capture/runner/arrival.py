"""vLLM's outputs whose tokens are copied to the host in; those tokens, once they are there, out.

The copy runs on a stream of its own, and an event says when it is done. Asking an event costs a microsecond and waits
for nothing. Only the host's arrays are kept: what is on the device is let go when the engine lets go of it.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.crossing import cross
from introspan.capture.step.delivery import NO_TOKEN, Arrival


# Any throughout: vLLM's AsyncOutput (V2), AsyncGPUModelRunnerOutput (V1) and ModelRunnerOutput; torch's events.
class Copied:
    """Tokens [requests, ≥ 1] in an array that a copy fills; counts: [requests] how many of each are drawn."""

    def __init__(self, event: Any, tokens: NDArray[Any], counts: NDArray[Any]) -> None:
        self._event = event
        self._tokens = tokens
        self._counts = counts

    def is_here(self) -> bool:
        """Whether the copy is done."""
        return bool(self._event.query())

    def wait(self) -> None:
        """Waits for the copy."""
        self._event.synchronize()

    def tokens(self) -> NDArray[np.int64]:
        """The first token of each request."""
        return np.where(self._counts > 0, self._tokens[:, 0], NO_TOKEN).astype(np.int64)


class Known:
    """Tokens that came with their step, as a list for each request."""

    def __init__(self, tokens: list[list[int]]) -> None:
        self._tokens = tokens

    def is_here(self) -> bool:
        """They are."""
        return True

    def wait(self) -> None:
        """Nothing to wait for."""

    def tokens(self) -> NDArray[np.int64]:
        """The first token of each request."""
        return np.array([own[0] if len(own) else NO_TOKEN for own in self._tokens], np.int64)


class Drawn:
    """The tokens of a step as they were drawn, [requests, ≥ 1] where the model runs, or on the host.

    Asked for one by one where the model runs on the host; from a device that would wait for it.
    """

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        """Requests in the batch."""
        return len(self.tokens)

    def __call__(self, place: int) -> int:
        """The token of the request at a place in the batch."""
        return int(self.tokens[place, 0])

    def at(self, places: torch.Tensor) -> torch.Tensor:
        """The tokens at places in the batch, int [n], where the places are; waits for nothing.

        Places beyond the batch are the caller's to keep out: a device cannot be asked without waiting.
        """
        return cross(self.tokens[:, 0], places.device).index_select(0, places)


def drawn_of(output: Any, sampled: torch.Tensor | None) -> Drawn:
    """The tokens of a V1 runner's step: as sampled, or those its output lists where the runner has read them itself.

    None in pipeline stages but the last, whose recorder asks for none.
    """
    if sampled is not None:
        return Drawn(sampled)
    listed = getattr(output, "sampled_token_ids", None) or []
    return Drawn(torch.from_numpy(Known(listed).tokens()).unsqueeze(1))


def arrival_of(output: Any) -> Arrival | None:
    """The tokens of an output of either runner; None where it brings none, as in all pipeline stages but the last."""
    if hasattr(output, "copy_event"):
        return Copied(output.copy_event, output.sampled_token_ids, output.num_sampled_tokens_np)
    if hasattr(output, "async_copy_ready_event"):
        tokens = output.sampled_token_ids_cpu.numpy()
        counts = np.ones(len(tokens), np.int64)
        counts[output._invalid_req_indices] = 0  # noqa: SLF001 - nothing public says it before the copy is done
        return Copied(output.async_copy_ready_event, tokens, counts)
    tokens = getattr(output, "sampled_token_ids", None)
    return Known(tokens) if tokens else None
