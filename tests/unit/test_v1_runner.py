"""What goes wrong with one request in a step, and what that costs the others: nothing."""

from types import SimpleNamespace

import pytest

from introspan.capture.health import Health
from introspan.capture.runner.v1_runner import V1Runner

ODD = "odd"


class Followed:
    """A recorder that notes which requests begin and end, and raises where an odd one does."""

    def __init__(self):
        self.began, self.ended, self.discarded = [], [], 0

    def must_flush(self, _scheduled):
        return False

    def flush(self):
        raise AssertionError("nothing has to be flushed")

    def begin(self, request, _sampling):
        if request == "odd to begin":
            raise RuntimeError(request)
        self.began.append(request)

    def finish(self, key):
        if key == ODD:
            raise RuntimeError(key)
        self.ended.append(key)

    def discard(self):
        self.discarded += 1


def params(**given):
    none = dict.fromkeys(
        (
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "bad_words",
            "min_tokens",
            "allowed_token_ids",
            "structured_outputs",
            "seed",
        )
    )
    asked = {"repetition_penalty": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    return SimpleNamespace(**none | asked | given)


def identify(new):
    if new.key == ODD:
        raise ValueError(new.key)
    return new.key


@pytest.fixture
def followed():
    names = ("_update_states", "_prepare_inputs", "sample_tokens")
    runner = SimpleNamespace(**{name: lambda *_, **__: "the host's own" for name in names})
    recorder, health = Followed(), Health()
    V1Runner(runner, recorder, health, identify)

    def step(*, new=(), finished=()):
        wanted = [one if isinstance(one, tuple) else (one, params()) for one in new]
        output = SimpleNamespace(
            finished_req_ids=list(finished),
            scheduled_new_reqs=[SimpleNamespace(key=key, sampling_params=of) for key, of in wanted],
            num_scheduled_tokens={},
        )
        assert runner._update_states(output) == "the host's own"

    return SimpleNamespace(step=step, recorder=recorder, health=health)


@pytest.mark.parametrize("odd", [ODD, ("parameters", params(top_k="many"))])
def test_an_odd_request_costs_no_other_of_its_step_its_measurement(followed, odd):
    followed.step(new=["a", odd, "b"])
    assert followed.recorder.began == ["a", "b"]
    assert followed.recorder.discarded == 0, "rows of others wait on"
    assert followed.health.dropped_requests == {"request_error": 1}
    assert followed.health.errors.total() == 1


def test_odd_requests_however_many_switch_nothing_off(followed):
    for _ in range(20):
        followed.step(new=[ODD, "a"])
    assert followed.recorder.began == ["a"] * 20
    assert not followed.health.disabled
    assert followed.health.dropped_requests == {"request_error": 20}


@pytest.mark.parametrize(("new", "finished"), [(["a"], [ODD, "b"]), (["odd to begin", "a"], ["b"])])
def test_an_error_at_one_end_or_beginning_lets_the_others_of_the_step_end_and_begin(followed, new, finished):
    followed.step(new=new, finished=finished)
    assert (followed.recorder.began, followed.recorder.ended) == (["a"], ["b"])
    assert (followed.recorder.discarded, followed.health.errors["capture"]) == (1, 1)
