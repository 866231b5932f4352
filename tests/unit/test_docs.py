"""What the documents say is so."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from starlette.routing import Route

from docs.collector_settings import LIMITS, MEANINGS
from docs.generate import PAGES
from introspan.keys import KEYS
from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.archive.archive import Archive
from introspan_collector.config import ConfigurationError, load_settings
from introspan_collector.expose.app import build
from introspan_wire.signals import CATALOGUE, Kind
from tests.exposed import watched_sources

_ROOT = Path(__file__).parents[2]
_PAGES = sorted(
    Path(line)
    for line in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
)


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):(?!=)", (_ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_says_what_the_code_says(name):
    assert (_ROOT / "docs" / name).read_text() == PAGES[name](), "run make docs"


def test_every_meaning_belongs_to_a_setting_of_the_collector():
    page = (_ROOT / "docs" / "settings.md").read_text()
    assert [key for key in MEANINGS if f"| `{key}` |" not in page] == []


_BEYOND = {
    "grpc": "localhost",
    "http": "localhost",
    "trace_url": "https://traces",
    "accept.tls_certificate_file": "certificate.pem",
    "accept.tls_key_file": "key.pem",
    "log.max_bytes": 2**26,
    "aggregate.slot_seconds": 7,
    "aggregate.kept_slots": 11,
    "archive.flush_seconds": 61,
    "detect.page_days": 0.5,
    "detect.frozen_clusters": 499,
    "notify.alertmanagers": ["http://host", "http://host"],
    "notify.webhooks": ["http://user@host"],
    "notify.alertmanager_headers": {"name": "ü"},
    "notify.webhook_headers": {"name": "\n"},
    "notify.retry_limit_seconds": 0.5,
    "canary.endpoints": ["host:8000"],
}


def test_every_limit_in_words_is_broken_by_an_example():
    assert set(_BEYOND) == set(LIMITS) <= set(MEANINGS)


@pytest.mark.parametrize("key", _BEYOND)
def test_what_is_beyond_a_limit_in_words_is_refused(key):
    *section, name = key.split(".")
    given = {name: _BEYOND[key]}
    with pytest.raises(ConfigurationError):
        load_settings(None, {section[0]: given} if section else given, {})


def test_every_number_of_a_setting_has_limits():
    rows = [line.split(" | ") for line in (_ROOT / "docs" / "settings.md").read_text().splitlines()]
    numbers = [row for row in rows if len(row) == 4 and re.fullmatch(r"[\d,]+|`[\d.]+`", row[1])]
    assert len(numbers) > 40
    assert [row[0] for row in numbers if not row[2]] == []


@pytest.mark.parametrize("signal", CATALOGUE)
def test_every_signal_has_a_section_with_its_formula(signal):
    page = (_ROOT / "docs" / "signals.md").read_text()
    section = page.split(f"\n## {signal}\n")[1].split("\n## ")[0]
    assert CATALOGUE[signal].formula in section


def test_the_page_of_signals_names_the_metrics_that_there_are():
    page = (_ROOT / "docs" / "signals.md").read_text()
    exposed = (_ROOT / "tests" / "unit" / "golden" / "metrics.txt").read_text()
    stems = tuple(f"introspan_{name.replace('.', '_')}" for name in CATALOGUE)
    there_are = {
        name for name in re.findall(r"^# TYPE (\S+)", exposed, re.MULTILINE) if name.startswith(stems)
    }
    assert set(re.findall(r"`(introspan_\w+)`", page)) == there_are


def test_the_page_of_the_api_has_every_call_and_no_other(tmp_path):
    sources = watched_sources(Aggregator(), Archive(tmp_path), lambda: None, lambda: True)
    calls = {
        f"{method} {route.path}"
        for route in build(sources).routes
        if isinstance(route, Route) and route.path.startswith("/api/")
        for method in (route.methods or set()) - {"HEAD"}
    }
    page = (_ROOT / "docs" / "api.md").read_text()
    assert set(re.findall(r"`((?:GET|POST|DELETE) /api/[^`]+)`", page)) == calls


_COMPARED = """
import json
from types import SimpleNamespace

import numpy as np
from comparison import TOLERANCE, Comparison
from reference import HuggingFace

class Untrained(HuggingFace):
    # Runs no model: what is asked for is which signals are computed from a model's tensors.
    def __init__(self):
        pass

    def _run(self, inputs, positions, earliest, weights, streams):
        weights.append((np.ones((len(positions), 1)),) * 3)
        streams.extend([np.ones((len(inputs) - earliest, 4))] * 2)
        return np.ones((len(positions), 5))

class Listing(Comparison):
    def _compare(self, name, mine, expected, *_):
        compared.update(expected)

compared = set()
result = SimpleNamespace(
    rows_of=lambda name: slice(None), row_positions=np.arange(1, 4), hashes={"a": 1}, seeds={"a": 1}, columns=()
)
for temperature in (0.0, 1.0):
    call = SimpleNamespace(prompt=[1, 2], params={"temperature": temperature})
    Listing(result, Untrained(), 4).add(call, "a", [3, 4, 1], np.ones((32, 4)))
print(json.dumps([sorted(TOLERANCE), sorted(compared)]))
"""


@pytest.mark.thorough
def test_every_signal_has_a_reference_and_a_tolerance_in_the_parity_test():
    # A program of its own: the parity test's modules are of a folder that is no package.
    done = subprocess.run(
        [sys.executable, "-c", _COMPARED],
        cwd=_ROOT / "tests" / "e2e",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tolerances, compared = json.loads(done.stdout.splitlines()[-1])
    # Of requests that are sent again test_reprefill_capture.py has the formula.
    measured = sorted(name for name, signal in CATALOGUE.items() if Kind.DECODED in signal.kinds)
    assert tolerances == measured
    assert compared == measured


@pytest.mark.parametrize("page", _PAGES, ids=str)
def test_every_link_between_documents_leads_somewhere(page):
    text = (_ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (_ROOT / page).parent.joinpath(link).exists(), f"{page} links to {link}"


@pytest.mark.parametrize("page", _PAGES, ids=str)
def test_every_make_target_that_a_document_names_exists(page):
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", (_ROOT / page).read_text(), re.MULTILINE))
    assert named <= _targets()


@pytest.mark.parametrize("page", _PAGES, ids=str)
def test_every_setting_that_a_document_names_exists(page):
    named = set(re.findall(r"\bINTROSPAN_(?!COLLECTOR_)[A-Z_]+[A-Z]\b", (_ROOT / page).read_text()))
    assert named <= {key.name for key in KEYS}


@pytest.mark.parametrize("side", ["sdk/introspan", "collector/introspan_collector"])
def test_every_stage_is_under_the_contract_that_keeps_stages_apart(side):
    package = _ROOT / side
    stages = {f"{package.name}.{path.parent.name}" for path in package.glob("*/__init__.py")}
    # The command line is not a stage: it starts them.
    stages.discard(f"{package.name}.cli")
    contracts = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    kept_apart = [set(contract["modules"]) for contract in contracts if contract["type"] == "independence"]
    assert stages in kept_apart


def test_every_file_of_capture_has_its_place_in_the_architecture():
    page = (_ROOT / "docs" / "architecture.md").read_text().split("## Inside capture/")[1].split("\n## ")[0]
    capture = _ROOT / "sdk/introspan/capture"
    files = {path.name for path in capture.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"`(\w+\.py)`", page)) == files
    in_folders = {path.stem for path in capture.glob("*/*.py") if path.parent.name != "kernels"} - {
        "__init__"
    }
    named = {name.split("/")[-1] for name in re.findall(r"`([\w/]+)`", page)}
    assert in_folders <= named, in_folders - named


def test_every_decision_is_in_the_list_of_decisions():
    folder = _ROOT / "docs" / "adr"
    listed = re.findall(r"\((\d{4}-[^)]+)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


def test_readme_shows_exactly_two_commands_before_its_picture():
    before = (_ROOT / "README.md").read_text().split("\n![")[0].splitlines()
    commands = [line.split("#")[0].strip() for line in before if line.startswith("    ")]
    assert commands == ["make demo", "make test"]
    assert len(before) <= 24, "more than one screen"
