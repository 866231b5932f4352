"""The parts of `make bench`, and what each measured value is held against."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one value of a part's result; key is its path with dots, of: what alone was held against it."""

    key: str
    bound: float
    at_most: bool
    unit: str
    of: str = ""

    def met(self, value: float) -> bool:
        """Whether a measured value keeps the bound."""
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:,g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Part:
    """One program of bench/: its module has `run() -> dict`, whose values are numbers, text or such dicts."""

    name: str
    module: str
    question: str
    targets: tuple[Target, ...]


def _at_most(key: str, bound: float, unit: str = "") -> Target:
    return Target(key, bound, at_most=True, unit=unit)


def _at_least(key: str, bound: float, unit: str = "", of: str = "") -> Target:
    return Target(key, bound, at_most=False, unit=unit, of=of)


PARTS = {
    part.name: part
    for part in (
        Part(
            "cost",
            "bench.cost",
            "What does measuring cost the served model? Ratios are to the same engine with the plugin in it, which"
            " measures no request (*idle*), or taken out of it (*unhooked*).",
            (
                _at_most("eager.batch_1.defaults.cpu_ratio_high", 1.01),
                _at_most("eager.batch_16.defaults.cpu_ratio_high", 1.01),
                _at_most("eager.batch_16.defaults.ours_ms_per_step", 0.5, "ms"),
                _at_most("eager.batch_1.everything.cpu_ratio", 1.15),
                _at_most("eager.batch_16.everything.cpu_ratio", 1.15),
                _at_most("compiled.batch_1.defaults.cpu_ratio_high", 1.01),
                _at_most("compiled.batch_16.defaults.cpu_ratio_high", 1.01),
                _at_most("compiled.batch_16.defaults.ours_ms_per_step", 0.5, "ms"),
                _at_most("compiled.batch_1.everything.cpu_ratio", 1.15),
                _at_most("compiled.batch_16.everything.cpu_ratio", 1.15),
            ),
        ),
        Part(
            "latency",
            "bench.latency",
            "Does measuring or exporting slow the slowest steps of the served model?",
            (
                _at_most("exported_to_idle_p999.high", 1.01),
                _at_most("exported_to_captured_p999.high", 1.01),
            ),
        ),
        Part(
            "ingest",
            "bench.ingest",
            "How much does one collector take?",
            (
                _at_least("saturated.rows_per_core_second", 10_000, "rows/s"),
                _at_most("saturated.acknowledgement_seconds_p99", 0.05, "s"),
                _at_least("ratio_to_otlp", 40),
            ),
        ),
        Part(
            "series",
            "bench.series",
            "What do memory and a scrape come to at the series cap?",
            (
                _at_least("aggregate.rows_per_cpu_second", 40_000, "rows/s", of="aggregates alone"),
                _at_most("cap.peak_mb", 300, "MB"),
                _at_most("cap.text.seconds_worst", 1, "s"),
                _at_most("cap.openmetrics.seconds_worst", 1, "s"),
            ),
        ),
        Part(
            "detection",
            "bench.detection",
            "What does detection cost the thread that reads the log?",
            # An alert is to be out within a second after its tick closes.
            (_at_most("rows.longest_advance_ms", 1000, "ms"),),
        ),
    )
}
"""Every part by name, in the order they run."""
