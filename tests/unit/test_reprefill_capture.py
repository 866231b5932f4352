"""What a worker makes of requests that are sent again, and that nothing else of them is measured."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from introspan.admission import Admission
from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import Form, StreamPoint
from introspan.capture.output.probe import OutputProbe
from introspan.capture.output.sampler import Sampling
from introspan.capture.requests.identity import Identity
from introspan.capture.requests.passport import Passport, stamp
from introspan.capture.requests.reprefill_limit import METHOD, limit, offer
from introspan.capture.requests.reprefill_mark import token
from introspan.capture.rows import Table, last_of_bursts
from introspan.capture.step.recorder import Probes, Recorder, Sinks
from introspan.capture.stream.probe import StreamProbe
from introspan.capture.stream.projection import orthogonal_map
from introspan.capture.stream.reprefill import MOST_HELD, ReprefillProbe
from introspan.capture.taps.streams import Taps
from introspan.observation import Again, Disabled, Request
from introspan_wire.signals import Kind

D, V, LAYERS, ROWS_MAX, STRIDE, SLOTS = 64, 100, 4, 64, 4, 8
PROJECTED = (1, 2)
RATE = 0.25
KEY = b"0123456789abcdef"


class Model:
    """Four layers, of which two are projected."""

    def __init__(self, *, with_probe: bool = True) -> None:
        self.rows, self.compared, self.finished = [], [], []
        self.layers = [nn.Identity() for _ in range(LAYERS + 1)]
        points = [StreamPoint(i, self.layers[i], Form.LAYER_INPUT) for i in range(LAYERS)]
        self.health = Health()
        taps = Taps(points, ROWS_MAX, D, torch.float32, torch.device("cpu"), self.health)
        layout = lay_out((0, 1, 2), PROJECTED, (), range(0))
        self.probe = (
            ReprefillProbe(layout, RATE, self.health.dropped_requests, lambda: 7) if with_probe else None
        )
        self.recorder = Recorder(
            layout,
            Table(SLOTS, STRIDE),
            Probes(
                StreamProbe(layout, taps, SLOTS, D),
                None,
                OutputProbe(layout, SLOTS, ROWS_MAX, self.health),
                None,
                self.probe,
            ),
            self.health,
            Sinks(self.rows.append, self.compared.extend, lambda *ended: self.finished.append(ended)),
            ROWS_MAX,
            clock=lambda: 0.0,
        )

    def begin(self, key, prompt_tokens=3, number="", again=None, hash64=0):
        trace = bytes(range(16))
        request = Request(
            key,
            f"id of {key}",
            trace,
            trace[:8],
            9,
            "ad",
            prompt_tokens,
            0,
            1.0,
            hash64,
            number=number,
            again=again,
        )
        self.recorder.begin(request, Sampling(1.0, 0, 1.0, 0.0, reproducible=True))

    def step(self, key, start, count, stream):
        """One request's tokens; stream [LAYERS + 1, D] is that of the last of them."""
        self.recorder.begin_step([key], np.array([start]), np.array([count]))
        for layer, row in zip(self.layers, stream, strict=True):
            layer(row.expand(count, D))
        if self.recorder.keeps_logits:
            self.recorder.before_sampling(stream[0, :1].expand(1, V) * torch.linspace(0, 1, V))
        if self.recorder.has_rows:
            self.recorder.after_sampling(lambda _: start, lambda _: np.arange(start, dtype=np.int32))

    def answer(self, key, number, tokens=9, hash64=0):
        """A request of three prompt tokens and some decoded ones, and its end; the streams by position."""
        self.begin(key, number=number, hash64=hash64)
        streams = {2: stream(2)}
        self.step(key, 0, 3, streams[2])
        for position in range(3, 3 + tokens - 1):
            streams[position] = stream(position)
            self.step(key, position, 1, streams[position])
        self.recorder.finish(key)
        return streams

    def send_again(self, number, position, of, *, not_sent=0):
        """The same tokens as a prompt, in two chunks."""
        self.begin("again", position + 1, number, Again(position, not_sent))
        self.step("again", 0, 2, stream(99))
        self.step("again", 2, position - 1, of)
        self.recorder.finish("again")


def stream(seed):
    made = torch.randn(LAYERS + 1, D, generator=torch.Generator().manual_seed(seed))
    return made.cumsum(dim=0)


def last_measured(tokens=9, hash64=0):
    return 3 + last_of_bursts(hash64, STRIDE, tokens - 1)


@pytest.mark.parametrize("scale", [0.0, 1e-5, 1e-2, 1.0])
def test_the_distance_is_that_of_the_formula_computed_in_float64(scale):
    model = Model()
    streams = model.answer("a", "n")
    position = last_measured()
    other = streams[position] + scale * stream(50)
    model.send_again("n", position, other)
    (found,) = model.compared
    map_ = orthogonal_map(D).astype(np.float64)
    for column, value in zip(found.schema.columns, found.values.tolist(), strict=True):
        states = [s[column.layer].double().numpy() for s in (streams[position], other)]
        apart = map_ @ np.subtract(*[h / np.sqrt(np.mean(h**2)) for h in states])
        assert value == pytest.approx(np.linalg.norm(apart) / np.sqrt(32), rel=1e-3, abs=2e-7)
    assert [(c.signal, c.layer) for c in found.schema.columns] == [
        ("consistency.reprefill", layer) for layer in PROJECTED
    ]


def test_a_comparison_bears_the_name_of_the_request_that_somebody_asked():
    model = Model()
    streams = model.answer("a", "n")
    position = last_measured()
    model.send_again("n", position, streams[position])
    (found,) = model.compared
    assert found.schema.kind is Kind.REPREFILL
    assert (found.request_id, found.trace_id, found.adapter, found.cluster_key) == (
        "id of a",
        bytes(range(16)),
        "ad",
        9,
    )
    assert (found.token_start, found.token_count, found.prompt_tokens) == (position, 1, 3)
    assert (found.sampling_probability, found.time_unix_nano) == (RATE, 7)


@pytest.mark.parametrize("with_probe", [True, False])
def test_nothing_else_of_a_request_sent_again_is_measured(with_probe):
    alone, model = Model(), Model(with_probe=with_probe)
    alone.answer("a", "")
    alone.recorder.flush()
    streams = model.answer("a", "n")
    model.send_again("n", last_measured(), streams[last_measured()])
    model.recorder.flush()
    assert {request.key for rows in model.rows for request in rows.requests} == {"a"}
    assert [request.key for request, _ in model.finished] == ["a"]
    values = [np.concatenate([rows.values for rows in one.rows]) for one in (alone, model)]
    assert np.array_equal(*values, equal_nan=True)
    assert len(model.compared) == with_probe


@pytest.mark.parametrize(("number", "position"), [("other", None), ("n", 3), ("n", 11)])
def test_what_there_is_nothing_to_compare_with_is_not_measured_and_counted(number, position):
    model = Model()
    model.answer("a", "n")
    model.send_again(number, position or last_measured(), stream(1))
    assert model.compared == []
    assert model.health.dropped_requests == Counter(reprefill_unmatched=1)


def test_a_request_is_compared_once():
    model = Model()
    streams = model.answer("a", "n")
    for _ in range(2):
        model.send_again("n", last_measured(), streams[last_measured()])
    assert len(model.compared) == 1
    assert model.health.dropped_requests["reprefill_unmatched"] == 1
    assert len(model.probe) == 0


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    model = Model()
    for i in range(MOST_HELD + 5):
        model.answer("a", f"n{i}")
    assert len(model.probe) == MOST_HELD
    assert model.health.dropped_requests["reprefill_forgotten"] == 5
    model.send_again("n4", last_measured(), stream(1))
    model.send_again("n5", last_measured(), stream(1))
    assert len(model.compared) == 1


def test_of_requests_that_are_not_to_be_sent_again_nothing_is_kept():
    model = Model()
    model.answer("a", "")
    model.recorder.flush()
    assert len(model.probe) == 0


def test_after_a_change_of_weights_nothing_is_compared_with_what_was_before():
    model = Model()
    streams = model.answer("a", "n")
    model.recorder.discard()
    model.send_again("n", last_measured(), streams[last_measured()])
    assert model.compared == []


def test_the_worker_counts_what_the_api_process_says_it_did_not_send():
    model = Model()
    streams = model.answer("a", "n")
    model.send_again("n", last_measured(), streams[last_measured()], not_sent=4)
    assert model.health.dropped_requests["reprefill_not_sent"] == 4
    assert len(model.compared) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_state_that_is_not_finite_is_not_compared_but_counted_elsewhere(value):
    model = Model()
    streams = model.answer("a", "n")
    broken = streams[last_measured()].clone()
    broken[1:, 3] = value
    model.send_again("n", last_measured(), broken)
    (found,) = model.compared
    assert np.isnan(found.values).all()


def new(passport):
    return SimpleNamespace(
        req_id="a-0a1b2c3d",
        sampling_params=stamp(SimpleNamespace(extra_args=None), passport),
        prompt_token_ids=[1, 2, 3],
        num_computed_tokens=0,
        lora_request=None,
    )


def marked(key=KEY, position=5, claimed=5, number="n", claimed_number="n"):
    proof = token(key, number, Again(position, 0))
    return Passport("a", number=claimed_number, again=Again(claimed, 0), token=proof)


@pytest.mark.parametrize(
    "forged",
    [
        marked(key=b"another key entirely"),
        marked(claimed=6),
        marked(claimed_number="m"),
        Passport("a", number="n", again=Again(5, 0), token=""),
        Passport("a", number="n", again=Again(5, 0), token="ü" * 64),
    ],
)
def test_a_mark_that_is_not_this_servers_is_neither_compared_nor_traffic(forged):
    drops = Counter()
    identity = Identity(b"salt" * 4, Admission(1.0, 1e9), reprefill_key=KEY, drops=drops)
    assert identity.of(new(forged)) is None
    assert drops == Counter(reprefill_not_genuine=1)


def test_a_genuine_mark_is_believed_only_where_requests_are_sent_again():
    genuine = new(marked())
    request = Identity(b"salt" * 4, Admission(0.0, 1e9), reprefill_key=KEY).of(genuine)
    assert (request.number, request.again, request.is_traffic) == ("n", Again(5, 0), False)
    assert Identity(b"salt" * 4, Admission(1.0, 1e9)).of(genuine) is None


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 24])
def test_a_burst_ends_where_the_worker_measures_attention(stride):
    for hash64 in (0, 5 << 32, 23 << 32, 2**64 - 1):
        table = Table(1, stride)
        table.begin(Request("a", "a", bytes(16), bytes(8), 0, "", 1, 0, 1.0, hash64))
        ends = []
        for position in range(60):
            selection = table.select(["a"], np.array([position]), np.array([1]))
            if selection is not None and selection.attention[0] and position:
                ends.append(position - 1)
        for decoded in range(60):
            before = [end for end in ends if end < decoded]
            assert last_of_bursts(hash64, stride, decoded) == (before[-1] if before else None)


@pytest.mark.parametrize(("rate", "request_rate"), [(0.25, 1.0), (0.25, 0.5), (0.5, 0.25), (1.0, 1.0)])
def test_what_lowers_measuring_lowers_what_is_sent_again_as_much(rate, request_rate):
    now, health = [0.0], Health()
    admission = Admission(request_rate, 100.0, lambda: now[0])
    worker = SimpleNamespace()
    offer(worker, lambda: limit(rate, request_rate, admission, health))
    ask = getattr(worker, METHOD)
    usual = min(rate, request_rate)
    assert ask() == usual
    admission.brake(request_rate / 4)
    assert ask() == pytest.approx(min(rate / 4, request_rate / 4))
    now[0] = 10.0
    admission.emitted(2000)  # twice the row budget
    assert ask() == pytest.approx(min(rate / 8, request_rate / 8))
    assert ask() <= admission.probability, "what is not measured cannot be compared"
    admission.brake(0.0)
    assert ask() == 0.0


@pytest.mark.parametrize("signal", ["capture", "residual", "consistency"])
def test_where_nothing_is_compared_nothing_is_sent_again(signal):
    health, admission = Health(), Admission(1.0, 100.0)
    assert limit(0.5, 1.0, admission, health) == 0.5
    health.refuse(Disabled(signal, "remote_brake", "the collector switched it off"))
    assert limit(0.5, 1.0, admission, health) == 0.0
    assert limit(0.5, 0.0, Admission(0.0, 100.0), Health()) == 0.0
