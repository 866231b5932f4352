"""What is read of vLLM's outputs, and when."""

from types import SimpleNamespace

import numpy as np
import torch

from introspan.capture.runner.arrival import Drawn, arrival_of
from introspan.capture.step.delivery import NO_TOKEN


class Event:
    """Done when it is told so."""

    is_done = False

    def query(self):
        return self.is_done


def test_tokens_are_here_when_their_copy_is_done_and_a_part_of_a_prompt_has_none():
    tokens, counts = np.zeros((3, 2), np.int64), np.zeros(3, np.int32)
    second = SimpleNamespace(copy_event=Event(), sampled_token_ids=tokens, num_sampled_tokens_np=counts)
    arrival = arrival_of(second)
    assert not arrival.is_here()
    tokens[:], counts[:], second.copy_event.is_done = [[5, 6], [7, 8], [9, 0]], [2, 0, 1], True
    assert arrival.is_here()
    assert arrival.tokens().tolist() == [5, NO_TOKEN, 9]


def test_tokens_of_the_first_runner_that_it_calls_invalid_are_none():
    first = SimpleNamespace(
        async_copy_ready_event=Event(),
        sampled_token_ids_cpu=torch.tensor([[5], [7], [9]]),
        _invalid_req_indices=[1],
    )
    assert arrival_of(first).tokens().tolist() == [5, NO_TOKEN, 9]


def test_tokens_that_came_with_their_step_are_here_and_a_stage_without_any_has_none():
    arrival = arrival_of(SimpleNamespace(sampled_token_ids=[[5], [], [9]]))
    assert arrival.is_here()
    assert arrival.tokens().tolist() == [5, NO_TOKEN, 9]
    assert arrival_of(SimpleNamespace(sampled_token_ids=[])) is None
    assert arrival_of(None) is None


def test_a_token_is_asked_for_by_its_place_in_the_batch():
    assert Drawn(torch.tensor([[5], [7]]))(1) == 7
