"""The two forms of the taps beside each other, over any schedule of steps: on the host, and for a graph."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from introspan.capture.health import Health
from introspan.capture.taps.attention import tap_attention
from introspan.capture.taps.streams import CHECK_ROWS, Taps
from tests.decoder import LAYERS, WIDTH, Decoder, inputs

ROWS_MAX, MOST_TOKENS, ALWAYS = 12, 11, 2
METADATA = SimpleNamespace(block_table=torch.zeros(MOST_TOKENS, 1, dtype=torch.int32))


@dataclass(frozen=True, slots=True)
class Step:
    """One forward: its tokens, the rows asked for, and what else is asked."""

    tokens: int
    rows: list[int]
    with_output: bool
    everywhere: bool
    is_flushed: bool
    is_followed_by_a_dummy_run: bool


@st.composite
def _steps(draw: st.DrawFn) -> Step:
    tokens = draw(st.integers(1, MOST_TOKENS))
    rows = draw(st.lists(st.integers(0, tokens - 1), unique=True, max_size=tokens))
    return Step(tokens, sorted(rows), *(draw(st.booleans()) for _ in range(4)))


class Tapped:
    """A decoder tapped in one of the forms."""

    def __init__(self, *, static: bool) -> None:
        self.model, self.health = Decoder(), Health()
        device = torch.device("cpu")
        self.taps = Taps(
            self.model.stream_points(),
            ROWS_MAX,
            WIDTH,
            torch.float32,
            device,
            self.health,
            ALWAYS,
            static=static,
        )
        self.queries = tap_attention(
            self.model.attention_points(), ROWS_MAX, torch.float32, device, self.health, static=static
        )

    @torch.inference_mode()
    def run(self, step: Step, seed: int, start: int) -> list[object]:
        """What the taps say of a step."""
        if step.rows:
            index = torch.tensor(step.rows)
            self.taps.select(index, start, with_output=step.with_output, everywhere=step.everywhere)
            for tap in self.queries:
                tap.select(index, start, with_output=step.with_output)
        self.model(*inputs(step.tokens, seed), METADATA)
        said: list[object] = []
        if step.rows:
            said += [self.taps.complete(), self.taps.silent(), self.taps.failed]
            said += [(tap.complete(), tap.failed) for tap in self.queries]
        self.taps.deselect()
        for tap in self.queries:
            tap.deselect()
        if step.is_followed_by_a_dummy_run:
            self.model(*inputs(step.tokens, seed + 1), None)
        return [*said, self.taps.was_silent(), [tap.was_silent() for tap in self.queries]]

    @torch.inference_mode()
    def kept(self) -> torch.Tensor:
        """Everything in the buffers, in one row."""
        outputs = [self.taps.outputs(tap, CHECK_ROWS) for tap in range(LAYERS + 1)]
        queries = [kept for tap in self.queries for kept in (tap.q, tap.output)]
        streams = self.taps.rows(ROWS_MAX, everywhere=True)
        return torch.cat([kept.flatten() for kept in (streams, *outputs, *queries)])


@settings(max_examples=100, deadline=None)
@given(st.lists(_steps(), min_size=1, max_size=12))
def test_both_forms_keep_the_same_rows_and_say_the_same_of_them(steps):
    host, static = Tapped(static=False), Tapped(static=True)
    waiting = 0
    for seed, step in enumerate(steps):
        if step.is_flushed or waiting + len(step.rows) > ROWS_MAX:
            waiting = 0
        assert host.run(step, seed, waiting) == static.run(step, seed, waiting)
        waiting += len(step.rows)
        assert torch.equal(host.kept(), static.kept())
        if step.rows:
            first = host.taps.not_finite(0, waiting), host.taps.rows(waiting)
            second = static.taps.not_finite(0, waiting), static.taps.rows(waiting)
            assert first[0] == second[0]
            assert torch.equal(first[1], second[1])
    assert not host.health.errors
    assert not static.health.errors
