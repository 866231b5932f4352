"""What is read of vLLM's outputs, and when."""

from types import SimpleNamespace

import numpy as np
import torch

from introspan.capture.runner.arrival import Drawn, arrival_of, drawn_of
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


def test_tokens_are_asked_for_all_at_once_and_stay_where_they_are():
    drawn = Drawn(torch.tensor([[5, 6], [7, 8], [9, 0]], dtype=torch.int32))
    assert len(drawn) == 3
    assert drawn.at(torch.tensor([2, 0])).tolist() == [9, 5]


def test_tokens_that_a_runner_has_read_itself_are_those_of_its_output():
    output = SimpleNamespace(sampled_token_ids=[[5], [], [9]])
    drawn = drawn_of(output, None)
    assert (drawn(2), drawn.at(torch.tensor([1, 2])).tolist()) == (9, [NO_TOKEN, 9])
    assert drawn_of(output, torch.tensor([[4], [5], [6]])).at(torch.tensor([0])).tolist() == [4]


def test_a_stage_that_draws_nothing_has_no_tokens_and_nobody_fails_for_it():
    assert len(drawn_of(None, None)) == len(drawn_of(SimpleNamespace(sampled_token_ids=[]), None)) == 0
