"""A piece of our work on the model's thread in; the same, timed and kept to one core, out."""

import time

import torch

# torch.set_num_threads as it was before vLLM's CPU worker replaced it with a function that does nothing.
from torch._C import set_num_threads

from introspan.capture.health import Health


class Turn:
    """Around everything that capture does on the model's thread.

    Adds the time to the health's capture_ns. Operators run on one thread: on rows as few as ours the threads of a
    parallel region wait for one another longer than they compute.
    """

    def __init__(self, health: Health) -> None:
        self._health = health
        self._started_ns = 0
        self._threads = 1

    def __enter__(self) -> None:
        self._started_ns = time.perf_counter_ns()
        self._threads = torch.get_num_threads()
        set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        set_num_threads(self._threads)
        self._health.capture_ns += time.perf_counter_ns() - self._started_ns
