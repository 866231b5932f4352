"""Workers of one engine measure the same requests, whatever each of them computes, sends or reads off its clock."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from vllm.v1.core.sched.output import NewRequestData

from introspan.admission import SharedAdmission
from introspan.capture.requests.engine_stamp import EngineClock, follow_core
from introspan.capture.requests.identity import Identity
from introspan.context import cluster_key
from introspan.observation import Request
from introspan.patches import Patches

REQUESTS, BUDGET = 3_000, 20


class Core:
    """The engine's core, which makes requests for workers, with a clock of its own."""

    def __init__(self, salt=b"the engine's own"):
        self.now = 5_000.0
        self.patches = Patches()
        follow_core(self.patches, NewRequestData, salt, lambda: self.now, lambda: self.now + 1e9)

    def made(self, number):
        self.now += 0.05
        request = SimpleNamespace(
            request_id=f"request-{number}",
            prompt_token_ids=[number, 7],
            mm_features=[],
            sampling_params=SimpleNamespace(extra_args=None),
            pooling_params=None,
            num_computed_tokens=0,
            lora_request=None,
            prompt_embeds=None,
            prompt_is_token_ids=None,
            replay_start=0,
        )
        # As it reaches a worker.
        return pickle.dumps(NewRequestData.from_request(request, ([],)))


@pytest.fixture
def core():
    made = Core()
    yield made
    made.patches.undo()


class Worker:
    def __init__(self, sent_each):
        self.engine = EngineClock()
        self.admission = SharedAdmission(1.0, BUDGET, self.engine.seconds)
        self.identity = Identity(b"", self.admission, engine=self.engine)
        self.sent_each = sent_each
        self.following = []

    def take(self, data):
        request = self.identity.of(pickle.loads(data))
        self.admission.emitted(self.sent_each)
        if request is not None:
            self.following.append(request)
        if len(self.following) > 40:
            ended = self.following.pop(0)
            self.admission.ended(ended, ended.prompt_tokens + 99)
        return request


def test_workers_over_their_budget_measure_the_same_requests(core):
    workers = [Worker(0), Worker(1_000)]
    taken = [[worker.take(data) for worker in workers] for data in map(core.made, range(REQUESTS))]
    assert all((a is None) == (b is None) for a, b in taken)
    measured = [pair for pair in taken if pair[0] is not None]
    for a, b in measured:
        assert (a.cluster_key, a.sampling_probability) == (b.cluster_key, b.sampling_probability)
    # Three observations a request, 20 requests a second: a third of them are what the budget allows.
    late = [pair[0] is not None for pair in taken[REQUESTS // 2 :]]
    assert 0.2 < np.mean(late) < 0.5
    assert workers[0].admission.probability < 1.0


def test_callers_are_told_apart_by_the_engines_salt(core):
    worker = Worker(0)
    request = worker.take(core.made(3))
    assert request.cluster_key == cluster_key(b"the engine's own", prompt_token_ids=[3, 7])
    assert worker.engine.unix_seconds() == core.now + 1e9


def test_a_request_without_a_stamp_is_measured_by_the_workers_own_clock():
    engine = EngineClock(lambda: 7.0, lambda: 8.0)
    engine.hear(SimpleNamespace())
    assert (engine.seconds(), engine.unix_seconds()) == (7.0, 8.0)
    assert len(engine.salt) == 16


def test_what_one_worker_admits_under_a_brake_the_others_admit_too():
    hashes = np.random.default_rng(1).integers(0, 2**64, 1_000, np.uint64).tolist()
    braked, free = (SharedAdmission(1.0, 1e9, lambda: 0.0) for _ in range(2))
    braked.brake(0.3)
    taken = [(braked.admit(one), free.admit(one)) for one in hashes]
    assert all(b is not None for a, b in taken if a is not None)
    assert {a for a, _ in taken} == {0.3, None}


@pytest.mark.parametrize(("decoded", "segments"), [(0, 0), (1, 1), (64, 1), (65, 2), (192, 2), (1_000, 5)])
def test_a_request_counts_for_as_many_observations_as_its_length_gives(decoded, segments):
    now = [0.0]
    admission = SharedAdmission(1.0, 1.0, lambda: now[0])
    request = Request("a", "a", bytes(16), bytes(8), 0, "", 10, 0, 1.0, 0)
    for _ in range(50):
        admission.ended(request, 9 + decoded)
    now[0] = 10.0
    admission.admit(0)  # one more, for its prompt
    share = min(1.0, 10.0 / (50 * segments + 1))
    assert admission.probability == pytest.approx(share)


def test_where_every_token_is_sent_by_itself_each_counts():
    now = [0.0]
    admission = SharedAdmission(1.0, 10.0, lambda: now[0], lambda tokens: tokens // 8)
    admission.ended(Request("a", "a", bytes(16), bytes(8), 0, "", 10, 0, 1.0, 0), 9 + 3_192)
    now[0] = 10.0
    admission.admit(0)
    assert admission.probability == pytest.approx(100.0 / 400.0)
