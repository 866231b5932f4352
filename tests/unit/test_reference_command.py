"""What `introspan reference` says of files, without a collector."""

import json
import zipfile
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from introspan_collector.cli import reference
from introspan_collector.detect.reference.builder import Builder
from introspan_collector.detect.reference.file import content_hash, to_bytes
from introspan_collector.detect.reference.reference import Identity, State
from introspan_collector.detect.sample import samples
from tests.batches import ORIGIN, Traffic

APP = typer.Typer()
reference.register(APP)


def run(*command, code=0):
    done = CliRunner().invoke(APP, ["reference", *map(str, command)])
    assert done.exit_code == code, done.output
    return done.stderr if code == 2 else done.stdout


def a_reference(seed=0, origin=ORIGIN, **fault):
    builder = Builder(Identity.of(origin, ""))
    for table in Traffic(seed).batch(400, 1_800_000_000.0, **fault).tables:
        for _, sample in samples(table):
            builder.add(sample)
    return builder.reference(State.PROVISIONAL, 1_800_000_000)


@pytest.fixture(scope="module")
def found():
    return a_reference()


@pytest.fixture
def file(found, tmp_path):
    (tmp_path / "one.zip").write_bytes(to_bytes(found))
    return tmp_path / "one.zip"


def test_show_says_what_a_file_holds(file, found):
    text = run("show", file)
    for said in ("f00d", "provisional", "400", content_hash(found), "2027-01-15 08:00:00 UTC"):
        assert said in text
    assert json.loads(run("show", file, "--format", "json"))["content_sha256"] == content_hash(found)


def test_diff_of_a_file_with_itself_is_nothing_and_ends_with_0(file):
    assert run("diff", file, file).startswith("0 of ")


def test_diff_of_two_days_of_the_same_traffic_is_within_chance(file, tmp_path):
    (tmp_path / "two.zip").write_bytes(to_bytes(a_reference(seed=1)))
    run("diff", file, tmp_path / "two.zip")


def test_diff_names_what_has_moved_and_ends_with_1(file, tmp_path):
    (tmp_path / "two.zip").write_bytes(to_bytes(a_reference(seed=1, shift=2.0)))
    text = run("diff", file, tmp_path / "two.zip", code=1)
    assert text.startswith("2 of ")
    assert "residual.log_rms at layer 16" in text
    answer = json.loads(run("diff", file, tmp_path / "two.zip", "--format", "json", code=1))
    assert {one["layer"] for one in answer["features"][:2]} == {16}


def test_diff_names_another_identity(file, tmp_path):
    (tmp_path / "two.zip").write_bytes(to_bytes(a_reference(origin=replace(ORIGIN, fingerprint="beef"))))
    assert "fingerprint is 'f00d', not 'beef'" in run("diff", file, tmp_path / "two.zip", code=1)


def test_a_file_that_is_none_is_refused_by_name_and_with_a_remedy(file, tmp_path):
    (tmp_path / "text.zip").write_text("hello")
    assert "text.zip" in run("show", tmp_path / "text.zip", code=2)
    assert "export it again" in run("show", tmp_path / "text.zip", code=2)
    assert "No such file" in run("diff", file, tmp_path / "none.zip", code=2)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    # Before a collector is asked at all.
    assert "empty.zip" in run("import", tmp_path / "empty.zip", "--url", "http://127.0.0.1:9", code=2)
    assert "either a file or --model" in run("show", code=2)
