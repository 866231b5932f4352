"""Taps in a forward that is recorded once and replayed: operations and addresses stay, which rows go where is data."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from introspan.capture.health import Health
from introspan.capture.taps.attention import AttentionTap, tap_attention
from introspan.capture.taps.streams import CHECK_ROWS, Taps
from tests.decoder import HEAD_SIZE, HEADS, LAYERS, WIDTH, Decoder, inputs
from tests.graphs import Graph

TOKENS, ROWS_MAX, ALWAYS = 12, 10, 2
CPU = torch.device("cpu")
METADATA = SimpleNamespace(block_table=torch.zeros(TOKENS, 1, dtype=torch.int32))

# What the taps may add to a graph: shapes that no value decides, and nothing that waits for one.
RECORDABLE = {
    "aten.ge.Scalar",
    "aten.le.Scalar",
    "aten.__and__.Tensor",
    "aten.clamp.default",
    "aten.index_select.default",
    "aten.unsqueeze.default",
    "aten.where.self",
    "aten.copy_.default",
    "aten.add_.Tensor",
    "aten.view.default",
    "aten.flatten.using_ints",
}


class Served:
    """A decoder whose streams and queries are tapped, and the memory from which its forwards read.

    Points beyond the first ALWAYS copy only where everything is asked for.
    """

    def __init__(self, *, static: bool = True, is_tapped: bool = True) -> None:
        self.model, self.health = Decoder(), Health()
        self.x, self.positions = inputs(TOKENS, 0)
        self.graph = Graph()
        if is_tapped:
            points = self.model.stream_points()
            self.taps = Taps(points, ROWS_MAX, WIDTH, torch.float32, CPU, self.health, ALWAYS, static=static)
            self.queries: list[AttentionTap] = tap_attention(
                self.model.attention_points(), ROWS_MAX, torch.float32, CPU, self.health, static=static
            )

    def record(self) -> Graph:
        """Records a forward as it would be run now."""
        self.graph = Graph()
        with torch.inference_mode(), self.graph:
            self.model(self.x, self.positions, METADATA)
        return self.graph

    def arrive(self, seed: int) -> None:
        """Other inputs, in the same memory."""
        with torch.inference_mode():
            for memory, new in zip((self.x, self.positions), inputs(TOKENS, seed), strict=True):
                memory.copy_(new)

    def ask(
        self, rows: list[int], start: int, *, with_output: bool = False, everywhere: bool = False
    ) -> None:
        """Asks all taps for these rows; not of queries where none are asked for."""
        index = torch.tensor(rows)
        self.taps.select(index, start, with_output=with_output, everywhere=everywhere)
        for tap in self.queries:
            tap.select(index, start, with_output=with_output)

    def leave(self) -> None:
        """Asks for nothing."""
        self.taps.deselect()
        for tap in self.queries:
            tap.deselect()

    @torch.inference_mode()
    def step(self, seed: int, rows: list[int], start: int, **asked: bool) -> None:
        """One replayed step, judged and over."""
        self.arrive(seed)
        self.ask(rows, start, **asked)
        self.graph.replay()
        assert self.taps.complete()
        assert all(tap.complete() for tap in self.queries)
        self.leave()

    @torch.inference_mode()
    def kept(self) -> dict[str, torch.Tensor]:
        """What is in the buffers, [taps, ROWS_MAX, width] each."""
        return {
            "streams": self.taps.rows(ROWS_MAX, everywhere=True).transpose(0, 1).clone(),
            "queries": torch.stack([tap.q.flatten(1) for tap in self.queries]),
            "attended": torch.stack([tap.output.flatten(1) for tap in self.queries]),
        }


def _recorded() -> Served:
    """Recorded as an engine does: before any request, so that nothing is asked for."""
    served = Served()
    served.record()
    return served


def _expected(served: Served, seed: int, rows: list[int]) -> dict[str, torch.Tensor]:
    seen = served.model.said_again(*inputs(TOKENS, seed))
    return {name: getattr(seen, name)[:, rows] for name in ("streams", "normed", "queries", "attended")}


def test_a_replayed_step_gives_the_rows_of_its_own_inputs():
    served = _recorded()
    for seed, rows in ((1, [3, 11]), (2, [0]), (3, [1, 2, 5, 6, 7, 8, 9, 10])):
        served.step(seed, rows, 0, everywhere=True)
        expected, kept = _expected(served, seed, rows), served.kept()
        for name in ("streams", "queries"):
            assert torch.equal(kept[name][:, : len(rows)], expected[name]), name
    assert not served.taps.was_silent()
    assert not served.health.errors


def test_rows_of_a_step_go_behind_those_that_wait_and_leave_them_as_they_are():
    served = _recorded()
    steps = [(1, [3, 11], 0), (2, [7], 2), (3, [0, 1, 2, 10], 3)]
    for seed, rows, start in steps:
        served.step(seed, rows, start)
    kept = served.kept()
    for seed, rows, start in steps:
        expected = _expected(served, seed, rows)
        places = slice(start, start + len(rows))
        assert torch.equal(kept["streams"][:ALWAYS, places], expected["streams"][:ALWAYS])
        assert torch.equal(kept["queries"][:, places], expected["queries"])
    assert not kept["streams"][:, 7:].any(), "places nobody asked about"
    assert not kept["streams"][ALWAYS:].any(), "points nobody asked about"
    assert not kept["attended"].any(), "outputs nobody asked about"


def test_what_checks_the_taps_is_kept_in_the_step_that_asks_for_it():
    served = _recorded()
    rows = [1, 2, 4, 5, 6, 7, 8, 9, 11]
    served.step(1, rows, 0, with_output=True)
    served.step(2, [0], len(rows))
    expected = _expected(served, 1, rows)
    for tap in range(LAYERS + 1):
        assert torch.equal(served.taps.tapped(tap, len(rows)), expected["streams"][tap])
        outputs = served.taps.outputs(tap, CHECK_ROWS)
        assert torch.equal(outputs, expected["normed"][tap][:CHECK_ROWS])
    assert torch.equal(served.kept()["attended"][:, : len(rows)], expected["attended"])


def test_a_forward_that_nobody_asks_about_leaves_buffers_and_counts_as_they_are():
    served = _recorded()
    served.step(1, [4, 6], 0, everywhere=True)
    before, counts = served.kept(), served.taps.silent()
    for seed in (2, 3):
        served.arrive(seed)
        served.graph.replay()
    assert counts == served.taps.silent() == []
    for name, kept in served.kept().items():
        assert torch.equal(kept, before[name]), name


def test_a_graph_over_fewer_tokens_does_not_reach_for_rows_that_it_lacks():
    served = _recorded()
    served.step(1, [4, 6], 0)
    before = served.kept()
    with torch.inference_mode():
        served.ask([11], 0)
        served.model(*inputs(5, 2))
    for name, kept in served.kept().items():
        assert torch.equal(kept, before[name]), name
    assert not served.health.errors


def test_a_tap_that_is_not_in_the_graph_is_named_when_rows_are_read():
    served = _recorded()
    missing = served.model.norms[1].introspan_fired
    served.graph.kernels = [
        kernel for kernel in served.graph.kernels if not any(arg is missing for arg in kernel.reads)
    ]
    served.step(1, [2], 0)
    assert served.taps.was_silent()
    assert served.taps.silent() == [1]
    assert not any(tap.was_silent() for tap in served.queries)


def test_a_tap_that_fires_twice_is_named_as_soon_as_the_first_step_is_looked_at():
    served = _recorded()
    twice = served.model.norms[2].introspan_fired
    served.graph.kernels += [
        kernel for kernel in served.graph.kernels if any(arg is twice for arg in kernel.reads)
    ]
    served.arrive(1)
    served.ask([2], 0, with_output=True)
    served.graph.replay()
    assert served.taps.silent() == [2]


@pytest.mark.parametrize("with_output", [True, False])
def test_attention_that_is_not_in_the_graph_is_named(with_output):
    served = _recorded()
    missing = {id(served.queries[1].static.buffers[1].fired)}
    served.graph.kernels = [
        kernel for kernel in served.graph.kernels if not missing & {id(arg) for arg in kernel.reads}
    ]
    served.arrive(1)
    served.ask([2, 3], 0, with_output=with_output)
    served.graph.replay()
    # Where outputs are looked at there is waiting anyway.
    assert [tap.complete() for tap in served.queries] == [True, not with_output, True]
    served.leave()
    if not with_output:
        assert [tap.was_silent() for tap in served.queries] == [False, True, False]


def test_a_step_that_was_cut_short_is_not_held_against_the_next():
    served = _recorded()
    served.ask([2], 0)
    served.leave()  # no forward, and nobody asked whether it was complete
    served.step(1, [2], 0)
    assert not served.taps.was_silent()
    assert not any(tap.was_silent() for tap in served.queries)


def _addresses_of_two_steps(served: Served) -> list[list[tuple[str, list[int]]]]:
    found, held = [], []
    for seed, rows, start in ((1, [3, 11], 0), (2, [7, 8, 9], 2)):
        served.arrive(seed)
        served.ask(rows, start)
        held.append(served.record())
        found.append(held[-1].addresses())
        served.leave()
    return found


def test_operations_and_addresses_are_the_same_in_every_step():
    first, second = _addresses_of_two_steps(Served())
    assert first == second
    assert first, "something was read from outside"


def test_the_form_for_the_host_could_not_be_recorded():
    first, second = _addresses_of_two_steps(Served(static=False))
    assert first != second


def test_taps_add_only_operations_that_wait_for_nothing_and_whose_shapes_no_value_decides():
    without, with_taps = Served(is_tapped=False).record(), Served().record()
    added = Counter(with_taps.names()) - Counter(without.names())
    assert set(added) <= RECORDABLE
    assert added["aten.add_.Tensor"] == 2 * LAYERS + 1, "one count a tap"


def test_nothing_but_the_buffers_is_written_to():
    served = Served()
    seen = served.model.said_again(served.x, served.positions)
    with torch.inference_mode():
        served.ask([1, 2], 0, with_output=True)
        result = served.model(served.x, served.positions)
    assert torch.equal(result, seen.normed[-1])


def test_queries_whose_rows_are_further_apart_than_they_are_wide_are_copied():
    (tap,) = tap_attention(
        Decoder().attention_points()[:1], ROWS_MAX, torch.float32, CPU, Health(), static=True
    )
    whole = torch.randn(TOKENS, 3 * WIDTH)
    query = whole[:, :WIDTH].view(TOKENS, HEADS, HEAD_SIZE)
    tap.select(torch.tensor([5, 9]), 1, with_output=True)
    tap.point.module.impl.forward(None, query, None, None, None, None, output=torch.empty_like(query))
    assert tap.complete()
    assert torch.equal(tap.q[1:3], query[[5, 9]])


def _attention_tap() -> tuple[AttentionTap, Health]:
    health = Health()
    points = Decoder().attention_points()[:1]
    points[0].module.impl.forward = lambda *_, output: output
    return tap_attention(points, ROWS_MAX, torch.float32, CPU, health, static=True)[0], health


def test_metadata_without_a_block_table_is_none_of_a_recorded_taps_business():
    tap, health = _attention_tap()
    tap.select(torch.tensor([1]), 0, with_output=False)
    query, flash_infer = torch.randn(TOKENS, HEADS, HEAD_SIZE), SimpleNamespace()
    tap.point.module.impl.forward(None, query, None, None, None, flash_infer, output=torch.empty_like(query))
    assert not tap.failed
    assert not health.errors
    assert torch.equal(tap.q[0], query[1])


def test_an_output_of_fewer_bits_is_not_copied_and_switches_attention_off():
    tap, health = _attention_tap()
    tap.select(torch.tensor([1]), 0, with_output=True)
    query, output = torch.randn(TOKENS, HEADS, HEAD_SIZE), torch.ones(TOKENS, WIDTH // 2, dtype=torch.uint8)
    tap.point.module.impl.forward(None, query, None, None, None, None, output=output)
    ((signal, entry),) = health.disabled.items()
    assert (signal, entry.reason) == ("attention", "unsupported_attention")
    assert "output is quantised (torch.uint8)" in entry.detail
    assert not health.errors
    assert not tap.output.any()


def test_an_error_in_a_tap_stays_in_it_and_is_counted():
    served = Served()
    served.ask([1], 0)
    served.model.norms[0].introspan_rows = torch.zeros(ROWS_MAX, WIDTH + 1)
    with torch.inference_mode():
        served.model(served.x, served.positions)
        served.model(served.x, served.positions)
    assert served.taps.failed
    assert served.health.errors == {"residual": 1}, "once a step"


def test_taps_that_failed_once_are_recorded_all_the_same():
    served = Served()
    broken = served.queries[0]
    with torch.inference_mode():
        odd = torch.zeros(1, WIDTH + 1)
        broken.point.module.impl.forward(None, odd, None, None, None, None, output=odd.clone())
        right, module = served.model.norms[0].introspan_rows, served.model.norms[0]
        module.introspan_rows = torch.zeros(ROWS_MAX, WIDTH + 1)
        served.model(served.x, served.positions)
        module.introspan_rows = right
    assert served.health.errors == {"residual": 1, "attention": 1}
    served.record()
    served.step(1, [3], 0, everywhere=True)
    assert served.taps.silent() == []
    assert torch.equal(served.kept()["queries"][:, :1], _expected(served, 1, [3])["queries"])


@pytest.mark.parametrize("width", [WIDTH, 33])
def test_what_a_tap_writes_is_no_view_and_begins_where_a_compiler_takes_it_to(width):
    points = Decoder().stream_points()
    taps = Taps(points, 9, width, torch.bfloat16, CPU, Health(), static=True)
    for point in points:
        for name in ("rows", "outputs", "fired"):
            written = getattr(point.module, f"introspan_{name}")
            assert written._base is None
            assert written.storage_offset() == 0
            assert written.data_ptr() % 16 == 0
    points[1].module.introspan_rows[8, 3] = 5.0
    assert taps.kept(9)[8, 1, 3] == 5.0
