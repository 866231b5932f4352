"""Requests and positions in; the numbers that a model without a GPU has there, and events of a device, out."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import nn

LAYERS, WIDTH, VOCABULARY = 3, 8, 12
END = 3
"""The token that ends a request which does not ignore it."""

MOST_REQUESTS, MOST_TOKENS, MODEL_LENGTH = 4, 16, 96


def stream(seed: int, position: int) -> np.ndarray:
    """The residual stream of a token, [LAYERS + 1, WIDTH]."""
    layer, place = np.arange(LAYERS + 1)[:, None], np.arange(WIDTH)[None, :]
    return (2 + np.sin(1.3 * seed + 0.9 * position * (place + 1) + layer)).astype(np.float32)


def logits(seed: int, position: int) -> np.ndarray:
    """What the next token is drawn from, [VOCABULARY]."""
    token = np.arange(VOCABULARY)
    return (4 * np.sin(2.3 * seed + 1.7 * position * (token + 1) + token)).astype(np.float32)


def drawn(seed: int, position: int) -> int:
    """The token drawn at a position: the likeliest."""
    return int(logits(seed, position).argmax())


class Event:
    """A device's event: done when the engine gets that far, or when somebody waits for it."""

    def __init__(self, **_):
        self.is_done, self.waits, self.when_done = False, 0, lambda: None

    def record(self, *_):
        pass

    def finish(self):
        if not self.is_done:
            self.is_done = True
            self.when_done()

    def query(self):
        return self.is_done

    def synchronize(self):
        self.waits += not self.is_done
        self.finish()


@contextmanager
def device(monkeypatch) -> Iterator[None]:
    """The few calls of torch.cuda that vLLM's late output makes."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda _: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr("vllm.v1.worker.gpu.buffer_utils.is_uva_available", lambda: False)
    yield


def hold_back(event: Event, *arrays: np.ndarray) -> None:
    """What a copy fills holds anything until it is done."""
    true = [array.copy() for array in arrays]
    for array in arrays:
        array.fill(7_777)
    event.when_done = lambda: [np.copyto(array, of) for array, of in zip(arrays, true, strict=True)]


class Model(nn.Module):
    """Layers that a stream passes, with what draws from the last of it; hidden states are (seed, position)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Identity() for _ in range(LAYERS + 1))

    def forward(self, tokens: list[tuple[int, int]], rows: int) -> torch.Tensor:
        """Hidden states of so many rows, the first of them these tokens.

        Rows that are nobody's are not finite: a measurement of one would be seen.
        """
        streams = np.full((LAYERS + 1, rows, WIDTH), np.nan, np.float32)
        hidden = np.full((rows, 2), np.nan, np.float32)
        for row, token in enumerate(tokens):
            streams[:, row], hidden[row] = stream(*token), token
        for layer, of_layer in zip(self.layers, torch.from_numpy(streams), strict=True):
            layer(of_layer)
        return torch.from_numpy(hidden)

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Raw logits of hidden states."""
        return torch.from_numpy(np.stack([logits(int(seed), int(position)) for seed, position in hidden]))
