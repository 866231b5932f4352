"""An engine's runner that is followed in; what capture hands on of it, held against what clients got, out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from introspan.capture.columns import Layout, lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import Form, StreamPoint
from introspan.capture.output.probe import OutputProbe
from introspan.capture.output.repetition import longest_period_tail
from introspan.capture.rows import Table
from introspan.capture.runner.choice import is_v2, steps_under_way
from introspan.capture.runner.late_v1_runner import LateV1Runner
from introspan.capture.runner.v2_runner import V2Runner
from introspan.capture.step.device_recorder import DeviceRecorder
from introspan.capture.step.late_recorder import LateRecorder
from introspan.capture.step.probes import Probes
from introspan.capture.step.sinks import Sinks
from introspan.capture.stream.probe import StreamProbe
from introspan.capture.taps.streams import Taps
from introspan.observation import Request
from tests.begun import BegunOutput, BegunStreams, EachStep, Lag, landing
from tests.device_double import END, LAYERS, MODEL_LENGTH, MOST_REQUESTS, WIDTH, drawn, logits, stream
from tests.v1_double import FirstRunner
from tests.v2_double import Runner
from tests.v2_engine import Engine, Plan, scheduler_of

ROWS_MAX, CAPACITY = 52, 2 * MOST_REQUESTS
MANY_BLOCKS, FEW_BLOCKS = 200, 26


def _request(new) -> Request:
    """Who a new request of the engine is."""
    return Request(new.req_id, new.req_id, bytes(16), bytes(8), 0, "", len(new.prompt_token_ids), 0, 1.0, 7)


@dataclass
class Watched:
    """An engine whose runner is followed, and what capture handed on of it."""

    engine: Engine
    health: Health
    recorder: LateRecorder
    layout: Layout
    rows: dict[str, list[tuple[int, np.ndarray]]] = field(default_factory=dict)
    adapters: dict[str, list[str]] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    ended: list[tuple[str, int]] = field(default_factory=list)
    lag: Lag | None = None

    def positions(self, key: str) -> list[int]:
        return [position for position, _ in self.rows.get(key, [])]

    def run(self, plans: dict[str, Plan], early=(), dummies=()) -> None:
        """Steps until nothing is left to do, as plans say."""
        step = 0
        while step <= max((plan.at for plan in plans.values()), default=0) or not self.engine.is_idle:
            assert step < 2_000, "the engine does not come to an end"
            for seed, (key, plan) in enumerate(plans.items()):
                if plan.at == step:
                    self.engine.add(key, plan, seed)
                if plan.abort_at == step:
                    self.engine.aborts.append(key)
            if step in dummies:
                self.engine.runner.execute_model(None, dummy_run=True)
            if self.lag is not None:
                self.lag.now += 1
            waits, self.engine.has_run = self.lag.waits if self.lag else 0, False
            self.engine.step(is_early=bool(early) and early[step % len(early)])
            if self.lag is not None and self.engine.has_run:
                self.lag.busy_waits += self.lag.waits - waits
            step += 1


def watch(
    configured: Callable[[], Any],
    *,
    depth: int = 2,
    blocks: int = MANY_BLOCKS,
    padding: int = 0,
    stride: int = 1,
    prompts_only=False,
    is_second=True,
    identify: Callable[[Any], Request | None] = _request,
    lag: int | None = None,
):
    """lag: steps until a device has computed what it was given; None: the host computes at once."""
    config = configured()
    scheduler = scheduler_of(config, blocks, is_async=depth > 1)
    assert steps_under_way(config) == depth, "vLLM's own number of steps under way"
    runner, health = Runner(padding) if is_second else FirstRunner(), Health()
    assert is_v2(runner) == is_second
    layout = lay_out(tuple(range(LAYERS)), (), (), range(0))
    points = [StreamPoint(i, layer, Form.LAYER_INPUT) for i, layer in enumerate(runner.model.layers)]
    taps = Taps(points, ROWS_MAX, WIDTH, torch.float32, torch.device("cpu"), health)
    behind, parts = None if lag is None else Lag(lag), []
    of_streams, of_output = (layout, taps, CAPACITY, WIDTH), (layout, CAPACITY, ROWS_MAX, health)
    probes = (
        Probes(StreamProbe(*of_streams), None, OutputProbe(*of_output))
        if behind is None
        else Probes(BegunStreams(parts, *of_streams), None, BegunOutput(parts, *of_output))
    )
    watched = Watched(Engine(scheduler, runner, depth), health, None, layout, lag=behind)

    def take(rows) -> None:
        for request, position, values in zip(rows.requests, rows.position.tolist(), rows.values, strict=True):
            watched.rows.setdefault(request.key, []).append((position, values))
            watched.adapters.setdefault(request.key, []).append(request.adapter)

    sinks = Sinks(take, lambda _: None, lambda request, last: watched.ended.append((request.key, last)))
    table = Table(CAPACITY, stride)
    recorder = LateRecorder(
        layout, table, probes, health, sinks, ROWS_MAX, CAPACITY, depth, clock=lambda: 0.0
    )
    if behind is not None:
        over = landing(behind, layout, health, ROWS_MAX)
        recorder = DeviceRecorder(
            layout,
            table,
            probes,
            health,
            sinks,
            ROWS_MAX,
            CAPACITY,
            depth,
            parts,
            over,
            EachStep(),
            lambda: 0.0,
        )
    watched.recorder = recorder

    def begin(new) -> Request | None:
        watched.begun.append(new.req_id)
        return identify(new)

    if is_second:
        V2Runner(runner, recorder, health, begin, prompts_only=prompts_only)
    else:
        LateV1Runner(runner, recorder, health, begin)
    return watched


PLANS = st.lists(
    st.builds(
        Plan,
        prompt=st.integers(1, 40),
        most=st.integers(1, 30),
        ends=st.booleans(),
        at=st.integers(0, 25),
        abort_at=st.none() | st.integers(0, 60),
    ),
    min_size=1,
    max_size=9,
).map(
    lambda plans: {
        f"r{i}": plan
        for i, plan in enumerate(plans)
        # Nobody aborts what has not come.
        if plan.abort_at is None or plan.abort_at > plan.at
    }
)
"""Whatever clients may ask for."""


def check_values(watched: Watched, key: str) -> None:
    """Each row has the numbers of its own request and position, and of the tokens that were delivered until then."""
    seed, tokens = watched.engine.runner.seeds[key], watched.engine.delivered[key]
    first = watched.positions(key)[0]
    block = watched.layout.blocks
    for position, values in watched.rows[key]:
        streams = stream(seed, position)[:LAYERS].astype(np.float64)
        log_rms = np.log(np.sqrt((streams**2).mean(axis=1)))
        assert np.allclose(values[block["residual.log_rms"]], log_rms, atol=1e-4), (key, position)
        raw = logits(seed, position).astype(np.float64)
        logprob = raw[drawn(seed, position)] - np.log(np.exp(raw).sum())
        assert np.allclose(values[block["output.logprob"]], logprob, atol=1e-4), (key, position)
        until = np.array(tokens[: position - first + 1], np.int32)
        assert values[block["output.repetition"]] == longest_period_tail(until), (key, position)


def _ends(watched: Watched, key: str, plan: Plan, position: int) -> bool:
    """Whether a request ends with the token of the row at a position."""
    is_longest = position - plan.prompt + 2 >= min(plan.most, MODEL_LENGTH - plan.prompt)
    return is_longest or (plan.ends and drawn(watched.engine.runner.seeds[key], position) == END)


def check(watched: Watched, plans: dict[str, Plan], depth: int) -> None:
    assert not watched.health.errors, watched.health
    assert not watched.health.disabled
    for key, plan in plans.items():
        tokens, measured = watched.engine.delivered[key], watched.positions(key)
        assert measured == list(range(plan.prompt - 1, plan.prompt - 1 + len(measured))), key
        if plan.abort_at is None:
            assert len(measured) == len(tokens), f"{key}: decoded rows are output tokens − 1"
            assert tokens[-1] == END or len(tokens) == min(plan.most, MODEL_LENGTH - plan.prompt)
        else:
            # Of the last steps nobody can tell, but that an end that was drawn is taken for the end.
            assert len(tokens) - depth <= len(measured) <= len(tokens) + depth, key
            assert len(measured) <= len(tokens) or _ends(watched, key, plan, measured[-1]), key
        if measured and len(measured) <= len(tokens):
            check_values(watched, key)
        if measured:
            assert watched.ended.count((key, measured[-1])) == 1
    assert sorted(key for key, _ in watched.ended) == sorted(watched.begun), "each that began, once"
    assert set(watched.health.dropped_rows) <= {"not_delivered"}
    lost = watched.health.dropped_rows["not_delivered"]
    assert watched.health.measured_rows == sum(map(len, watched.rows.values())) + lost
    assert watched.engine.waits == 0, "never waits in a step that has something to run"
    assert watched.lag is None or watched.lag.busy_waits == 0, "nor for what the device computes"
