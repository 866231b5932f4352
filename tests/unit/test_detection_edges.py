"""Traffic, clocks and checkpoints as they should not be: detection stays defined, bounded and says what it left out."""

from dataclasses import replace

import numpy as np
import pytest

from bench import fleet
from introspan_collector.config import ConfigurationError, load_settings
from introspan_collector.detect import checkpoint
from introspan_collector.detect.detector import Detector
from introspan_collector.detect.incident.finding import Subject
from introspan_collector.detect.reference.reference import State
from introspan_collector.detect.report import Report
from introspan_collector.detect.sample import samples
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.notice import Links
from introspan_wire.codec import Column, Schema
from introspan_wire.signals import Kind, Statistic
from tests.batches import Traffic

DAY_SECONDS = 86_400.0
SETTINGS = DetectSettings(
    provisional_clusters=200, frozen_clusters=400, frozen_hours=0.0, quiet_seconds=120.0, quiet_requests=200
)
MODEL = Subject("m", "")


class Shift:
    """A detector and its clock; every five seconds comes a batch."""

    def __init__(self, settings=SETTINGS, traffic=None):
        self.now = 1_800_000_000.0
        self.told = []
        self.detector = Detector(settings, self.told.append, Links("runbook.md"), lambda: self.now)
        self.report = Report(self.detector, lambda: self.now)
        self.traffic = traffic or Traffic()

    def run(self, batches, requests=20, change=lambda batch: batch, **fault):
        for _ in range(batches):
            self.now += 5.0
            self.detector.consume(change(self.traffic.batch(requests, self.now, **fault)))
            self.detector.advance()
        return self

    @property
    def watch(self):
        with self.detector.still() as state:
            return state.watches[MODEL]

    @property
    def streams(self):
        with self.detector.still() as state:
            return state.pieces.roster.streams

    @property
    def open(self):
        return self.detector.incidents.open()


def with_values(change):
    """Batches whose values, float32 [rows, columns], are changed in place; change takes them and the columns."""

    def changed(batch):
        tables = []
        for table in batch.tables:
            values = table.values.copy()
            change(values, table.schema.columns)
            tables.append(replace(table, values=values))
        return replace(batch, tables=tuple(tables))

    return changed


def of_signal(columns, signal):
    return [i for i, column in enumerate(columns) if column.signal == signal]


def set_to(signal, value):
    def change(values, columns):
        values[:, of_signal(columns, signal)] = value

    return with_values(change)


def of_model(fingerprint="f00d", replica="r0"):
    return lambda batch: replace(
        batch, origin=replace(batch.origin, fingerprint=fingerprint, replica=replica)
    )


def of_adapter(name):
    def change(batch):
        tables = (replace(table, adapter=[name] * len(table)) for table in batch.tables)
        return replace(batch, tables=tuple(tables))

    return change


@pytest.fixture(scope="module")
def frozen():
    shift = Shift().run(60)
    assert shift.watch.reference.state is State.FROZEN
    return shift.now, shift.traffic.requests, shift.detector.snapshot()


@pytest.fixture
def shift(frozen):
    """A reference is frozen."""
    shift = Shift()
    shift.now, shift.traffic.requests, state = frozen
    shift.traffic.rng = np.random.default_rng(1)
    shift.detector.restore(state)
    return shift


@pytest.mark.parametrize(
    ("signal", "value"),
    [
        ("residual.projection", np.nan),
        ("residual.projection", 1.0),
        ("residual.log_rms", np.nan),
        ("residual.log_rms", 0.0),
        ("output.entropy", np.inf),
        ("sampler.pit", np.nan),
    ],
)
def test_a_signal_without_information_makes_a_reference_and_no_alarm(signal, value):
    shift = Shift().run(120, change=set_to(signal, value))
    assert shift.watch.reference.state is State.FROZEN
    assert not shift.told


@pytest.mark.filterwarnings("error")
def test_heads_of_the_largest_size_are_averaged_without_a_warning():
    heads = Schema(
        Kind.PROMPT, tuple(Column("attention.entropy", Statistic.LAST, 0, head) for head in (0, 1))
    )
    table = replace(
        fleet.table(fleet.schema(fleet.Shape()), 8, np.random.default_rng(0)),
        schema=heads,
        values=np.full((8, 2), np.finfo(np.float32).max),
    )
    ((_, taken),) = samples(table)
    assert np.isinf(taken.features).all()
    assert taken.features.shape == (8, 1)


def test_nothing_measured_at_all_is_no_evidence():
    def nothing(values, columns):
        measured = [i for i, column in enumerate(columns) if not column.signal.endswith("nonfinite")]
        values[:, measured] = np.nan

    shift = Shift().run(120, change=with_values(nothing))
    assert not shift.told
    levels = shift.report.detection()["levels"]
    assert all(
        level["log10"] is None for level in levels if level["detector"] in ("bank", "drift", "extremes")
    )


@pytest.mark.parametrize("signal", ["residual.projection", "residual.log_rms"])
def test_a_signal_that_is_measured_no_longer_is_no_evidence(shift, signal):
    shift.run(120, change=set_to(signal, np.nan))
    assert not shift.told


def test_a_batch_without_rows_changes_nothing(shift):
    before = shift.detector.snapshot()
    empty = shift.traffic.batch(1, shift.now)
    tables = tuple(
        replace(
            table,
            **{name: getattr(table, name)[:0] for name in table.__dataclass_fields__ if name != "schema"},
        )
        for table in empty.tables
    )
    shift.detector.consume(replace(empty, tables=tables, status=None))
    shift.detector.consume(replace(empty, tables=(), status=None))
    assert shift.detector.snapshot() == before


def test_four_callers_are_waited_for_and_not_judged_by_how_often_they_call(shift):
    def of_four_callers(batch):
        tables = (
            replace(table, cluster_key=np.arange(len(table), dtype=np.uint64) % np.uint64(4))
            for table in batch.tables
        )
        return replace(batch, tables=tuple(tables))

    shift.run(60, change=of_four_callers, shift=5.0)
    assert not shift.told


def test_too_little_traffic_makes_no_reference_and_says_how_far_it_is():
    shift = Shift().run(5, requests=10)
    assert shift.watch.reference is None
    (building,) = shift.report.references()[0]["building"]
    assert (building["clusters"], building["reached"]) == (50, "none")
    with pytest.raises(ValueError, match=">= 200 clusters"):
        shift.detector.promote(MODEL)


def succession(shift):
    """The reference that takes the place of the present one now if the canary found both models alike."""
    return shift.watch.grow(shift.now, canaries_clean=True, may_succeed=True)


def test_while_a_deploy_rolls_one_reference_stays_and_evidence_with_it(shift):
    reference = shift.watch.reference
    for _ in range(80):
        shift.run(1, change=of_model("f00d", "r0"))
        shift.run(1, change=of_model("beef", "r1"))
        assert succession(shift) is None
    assert shift.watch.reference is reference
    (shown,) = shift.report.references()
    assert shown["reference"]["differs_from_served"] == ["fingerprint is 'f00d', not 'beef'"]
    assert not shift.told


def test_minutes_after_a_deploy_the_reference_of_what_is_served_takes_its_place(shift):
    shift.run(30, change=of_model("beef", "r1"))
    assert succession(shift) is None
    shift.run(50, change=of_model("beef", "r1"))
    succession(shift)
    assert shift.watch.reference.identity.fingerprint == "beef"
    assert not shift.told


def test_a_reference_of_another_architecture_is_refused_with_what_differs(shift):
    other = replace(shift.watch.reference, identity=replace(shift.watch.reference.identity, layer_count=2))
    with pytest.raises(ValueError, match="layer_count is 2, not 30"):
        shift.detector.adopt(other)


def test_a_reference_of_another_architecture_that_came_before_traffic_judges_nobody(shift):
    other = replace(shift.watch.reference, identity=replace(shift.watch.reference.identity, layer_count=2))
    fresh = Shift()
    fresh.detector.adopt(other)
    fresh.run(40, shift=5.0)
    assert not fresh.told
    (shown,) = fresh.report.references()
    assert shown["reference"]["differs_from_served"] == ["layer_count is 2, not 30"]


def test_columns_that_the_reference_lacks_are_not_compared(shift):
    def renamed(batch):
        tables = []
        for table in batch.tables:
            columns = tuple(
                column._replace(layer=column.layer + 1) if column.signal == "residual.log_rms" else column
                for column in table.schema.columns
            )
            tables.append(replace(table, schema=replace(table.schema, columns=columns)))
        return replace(batch, tables=tuple(tables))

    shift.run(60, shift=5.0, change=renamed)
    assert not shift.told


def test_a_canary_that_does_not_answer_is_waited_for_thirty_seconds_and_that_is_said(shift):
    while not shift.open:
        shift.run(1, outside=30.0)
    assert shift.open[0].triage.verdict.value == "pending"
    assert shift.detector.wanted("m")
    shift.run(7, outside=30.0)
    (incident,) = shift.open
    assert incident.triage.verdict.value == "undetermined"
    assert any("canary" in reason and "answer" in reason for reason in incident.triage.reasons)


@pytest.mark.parametrize("jump_seconds", [-DAY_SECONDS, DAY_SECONDS])
def test_a_jump_of_the_clock_is_no_evidence_and_stops_nothing(shift, jump_seconds):
    shift.run(10)
    shift.now += jump_seconds
    shift.run(40)
    assert not shift.told
    shift.run(40, shift=3.0)
    assert len(shift.open) == 1


def test_after_a_clock_was_set_back_the_samplers_test_goes_on_without_any_tick():
    shift = Shift(replace(SETTINGS, provisional_clusters=10_000, frozen_clusters=10_000)).run(10)
    shift.now -= DAY_SECONDS
    shift.run(60, temperature=1.5)
    (incident,) = shift.open
    assert incident.triage.verdict.value == "sampler"


def test_after_a_clock_was_set_back_the_impossible_is_told_of_again(shift):
    shift.run(1, nonfinite=3)
    (first,) = shift.open
    shift.now -= DAY_SECONDS
    shift.run(1, nonfinite=3)
    (again,) = shift.open
    assert again.evidence[0].last_unix_seconds < first.evidence[0].first_unix_seconds


def test_adapters_beyond_the_limit_are_counted_and_cost_no_stream():
    shift = Shift(replace(SETTINGS, subject_limit=4))
    for i in range(4):
        shift.run(1, change=of_adapter(f"a{i}"))
    streams = len(shift.streams)
    for i in range(100):
        shift.run(1, change=of_adapter(f"flood{i}"))
    shown = shift.report.detection()
    assert (shown["watched"], shown["unwatched_requests"]) == (4, 2000)
    assert {(level["model"], level["adapter"]) for level in shown["levels"]} == {("m", "")}
    assert len(shift.streams) == streams


def test_a_flood_of_adapters_that_is_over_leaves_room_for_others(shift):
    limited = Shift(replace(SETTINGS, subject_limit=4))
    limited.now = shift.now
    limited.detector.restore(shift.detector.snapshot())
    limited.traffic = shift.traffic
    for i in range(10):
        limited.run(1, change=of_adapter(f"flood{i}"))
    for _ in range(3):
        limited.now += DAY_SECONDS
        limited.run(2)
    limited.run(1, change=of_adapter("good"))
    with limited.detector.still() as state:
        assert set(state.watches) == {MODEL, Subject("m", "good")}
    assert limited.watch.reference.state is State.FROZEN


def test_an_adapter_that_appears_is_watched_and_takes_nothing_from_the_model(shift):
    reference = shift.watch.reference
    for _ in range(30):
        shift.run(1)
        shift.run(1, change=of_adapter("new"))
    assert {one["adapter"]: one["state"] for one in shift.report.references()}[""] == "frozen"
    assert shift.watch.reference is reference
    assert not shift.told


def test_a_replica_that_goes_away_is_forgotten_after_two_days(shift):
    shift.run(10, change=of_model(replica="gone"))
    assert "gone" in {stream.replica for stream in shift.streams}
    for _ in range(3):
        shift.now += DAY_SECONDS
        shift.run(2)
    assert "gone" not in {stream.replica for stream in shift.streams}
    assert "r0" in {stream.replica for stream in shift.streams}


def test_a_flood_of_replicas_is_bounded_and_counted(shift):
    with shift.detector.still() as state:
        state.pieces.roster._most_streams = len(shift.streams) + 40
    for i in range(100):
        shift.run(1, requests=2, change=of_model(replica=f"r{i}"))
    assert len(shift.streams) <= state.pieces.roster._most_streams
    assert shift.report.detection()["dropped_values"] > 0
    assert not shift.told


@pytest.mark.thorough
def test_a_flood_of_tenants_is_bounded_and_counted(shift):
    for _ in range(4):
        for _ in range(100):
            shift.detector.consume(shift.traffic.batch(500, shift.now))
        with shift.detector.still() as state:
            assert len(state.pieces.ticks._pairs.key) <= 1 << 21
    assert shift.report.detection()["dropped_values"] > 0
    shift.now += 20
    shift.detector.advance()
    assert not shift.told


def test_a_checkpoint_of_another_version_is_refused_and_nothing_of_it_is_taken(shift):
    before = shift.detector.snapshot()
    other = Shift(replace(SETTINGS, subject_limit=4))
    damaged = bytearray(before)
    damaged[len(damaged) // 2] ^= 1
    for state in (bytes(damaged), b"", before[:100]):
        with pytest.raises(ValueError, match="damaged"):
            other.detector.restore(state)
    with pytest.raises(ValueError, match="another version"):
        other.detector.restore(checkpoint.dump("the detector", 2, {"watches": []}, {}))
    with other.detector.still() as state:
        assert not state.watches
    shift.detector.restore(before)
    assert shift.detector.snapshot() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tick_seconds = -1", "tick_seconds must be > 0, got -1"),
        ("tick_seconds = nan", "tick_seconds must be finite, got nan: give a number"),
        ("page_days = inf", "page_days must be finite, got inf: give a number"),
        ("ticket_days = 40", "page_days must be at least ticket_days = 40.0, got 30.0"),
        ("frozen_clusters = 3", "frozen_clusters must be at least provisional_clusters = 500, got 3"),
        ("frozen_hours = -1", "frozen_hours must be >= 0, got -1"),
        ("subject_limit = 0", "subject_limit must be > 0, got 0"),
        ("subject_limit = 1.5", "detect.subject_limit: .*integer.*1.5"),
        ("tick_second = 5", "detect.tick_second: .*5"),
    ],
)
def test_a_setting_that_cannot_be_names_key_value_and_remedy(tmp_path, line, message):
    file = tmp_path / "collector.toml"
    file.write_text(f"[detect]\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        load_settings(file, {}, {})
