"""The figures in operations.md are measured ones, and its tables say what the settings are."""

import json
import re

import pytest

from introspan_collector.config import load_settings
from tests.deploy.rendered import ROOT

_PAGE = (ROOT / "docs" / "operations.md").read_text()
_MEASURED = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
_ROW = re.compile(r"^\| (?P<what>[^|]+) \| `(?P<key>[\w.]+)` \| (?P<plan>[\d.,]+) \|$", re.MULTILINE)
_SIZING = {row["key"]: float(row["plan"].replace(",", "")) for row in _ROW.finditer(_PAGE)}
# Of these more is better; of all others less.
_RATES = {"ingest.saturated.rows_per_core_second_with_every_consumer"}


def measured(key):
    part, *path = key.split(".")
    value = _MEASURED[part]["values"]
    for name in path:
        value = value[name]
    return value


def test_the_table_of_sizes_is_found():
    assert len(_SIZING) == 7


@pytest.mark.parametrize("key", _SIZING)
def test_what_to_plan_with_is_no_better_than_what_was_measured_and_not_twice_as_bad(key):
    planned, found = _SIZING[key], measured(key)
    worse = found / planned if key in _RATES else planned / found
    assert 1 <= worse < 2, f"{key}: measured {found:g}"


def columns(heading):
    """The rows below a header of a table, as cells."""
    table = _PAGE.partition(heading)[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table[2:]]


def quantity(text):
    number, _, unit = text.partition(" ")
    scale = {"GB": 1e9, "h": 3600, "min": 60, "": 1}[unit]
    return float(number.replace(",", "")) * scale


def test_what_follows_for_a_fleet_follows():
    rows = columns("| workers | observations a second | cores | archive a day | log of 4 GiB holds |")
    assert len(rows) == 3
    a_core = _SIZING["ingest.saturated.rows_per_core_second_with_every_consumer"]
    for row in rows:
        workers, rate, cores, archive, log = map(quantity, row)
        assert rate == 50 * workers
        assert cores == pytest.approx(rate / a_core)
        assert archive == pytest.approx(rate * 86_400 * _SIZING["series.archive.bytes_per_row"], rel=0.02)
        assert log == pytest.approx(2**32 / (100_000 * workers), rel=0.03)


def duration(text):
    return {"1 day": 86_400.0, "7 days": 604_800.0, "90 days": 7_776_000.0}[text]


def test_what_is_kept_by_default_is_what_the_settings_say():
    settings = load_settings(None, {})
    rows = columns("| folder | what | settings | by default |")
    compared = 0
    for _, _, names, values in rows:
        keys = re.findall(r"`([\w.]+)`", names)
        for key, value in zip(keys, values.split(", ") if keys else (), strict=True):
            section, _, name = key.partition(".")
            size = quantity(value.removesuffix(" GiB")) * 2**30 if "GiB" in value else duration(value)
            assert getattr(getattr(settings, section), name) == size, key
            compared += 1
    assert compared == 7


def test_the_queue_of_a_server_holds_as_long_as_is_said():
    assert "two to three minutes" in _PAGE
    assert 120 < 16 * 2**20 / 100_000 < 180
