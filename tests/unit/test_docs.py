"""What the documents say is so."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from docs.collector_settings import MEANINGS
from docs.generate import PAGES
from introspan.keys import KEYS
from introspan_wire.signals import CATALOGUE

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


@pytest.mark.parametrize("signal", CATALOGUE)
def test_every_signal_has_a_section_with_its_formula(signal):
    page = (_ROOT / "docs" / "signals.md").read_text()
    section = page.split(f"\n## {signal}\n")[1].split("\n## ")[0]
    assert CATALOGUE[signal].formula in section


@pytest.mark.parametrize("signal", CATALOGUE)
def test_every_signal_has_a_reference_and_a_tolerance_in_the_parity_test(signal):
    folder = _ROOT / "tests" / "e2e"
    comparison = (folder / "comparison.py").read_text()
    tolerances, rest = comparison.split("TOLERANCE = {")[1].split("\n}", 1)
    assert f'"{signal}":' in tolerances
    # The command that computes it stands in one of the two, by the signal's name.
    assert f'"{signal}"' in rest + (folder / "reference.py").read_text()


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


def test_every_decision_is_in_the_list_of_decisions():
    folder = _ROOT / "docs" / "adr"
    listed = re.findall(r"\((\d{4}-[^)]+)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


def test_readme_shows_exactly_two_commands_before_its_picture():
    before = (_ROOT / "README.md").read_text().split("\n![")[0].splitlines()
    commands = [line.split("#")[0].strip() for line in before if line.startswith("    ")]
    assert commands == ["make demo", "make test"]
    assert len(before) <= 24, "more than one screen"
