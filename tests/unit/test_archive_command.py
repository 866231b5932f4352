"""`introspan observations`: what it prints, and what it says to a question it cannot answer."""

import json
from dataclasses import replace

import numpy as np
import pytest
import structlog
import typer
from typer.testing import CliRunner

from bench.fleet import SECOND_NANO, Shape, batch, schema, table
from introspan_collector.archive.archive import Archive
from introspan_collector.cli.observations import register

NOW = 1_800_000_000 * SECOND_NANO
SHAPE = Shape(residual_layers=(0,), attention_layers=(0,), projection_layers=(0,), heads=2)


@pytest.fixture(autouse=True)
def logging_as_before():
    """The command sends log lines to its own standard error, which a test runner closes."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def data(tmp_path):
    archive = Archive(tmp_path / "archive", clock_unix_nano=lambda: NOW)
    of = table(schema(SHAPE), 3, np.random.default_rng(1), time_unix_nano=NOW, traced_share=1.0)
    archive.consume(batch(of, received_unix_nano=NOW))
    archive.flush()
    return tmp_path


def run(*arguments):
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return CliRunner().invoke(app, ["observations", *map(str, arguments)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--signal", "residual.spin"], ["--signal residual.spin", "residual.velocity"]),
        (["--since", "yesterday"], ["--since yesterday", "10m"]),
        (["--output", "/nonexistent/x", "--format", "jsonl"], ["/nonexistent/x"]),
    ],
)
def test_a_bad_option_is_answered_with_its_name_value_and_remedy(data, options, said):
    done = run("--data", data, *options)
    assert done.exit_code == 2
    assert all(part in done.stderr for part in said), done.stderr


def test_a_folder_that_is_not_the_collectors_is_refused_and_left_alone(tmp_path):
    done = run("--data", tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "nowhere is not a collector's folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_lines_go_to_standard_output(data):
    done = run("--data", data, "--format", "jsonl", "--signal", "output.margin")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [[value["signal"] for value in line["values"]] for line in lines] == [["output.margin"]] * 3


def test_an_output_file_is_replaced_and_nothing_is_printed(data, tmp_path):
    for _ in range(2):
        done = run("--data", data, "--format", "jsonl", "--output", tmp_path / "out.jsonl")
        assert (done.exit_code, done.stdout) == (0, "")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_parquet_is_what_duckdb_wrote(data, tmp_path):
    assert run("--data", data, "--format", "parquet", "--output", tmp_path / "out.parquet").exit_code == 0
    assert (tmp_path / "out.parquet").read_bytes().startswith(b"PAR1")
    assert run("--data", data, "--format", "parquet").stdout_bytes.startswith(b"PAR1")


def test_the_table_names_every_request(data):
    done = run("--data", data, "--signal", "output.margin")
    names = [
        json.loads(line)["request_id"]
        for line in run("--data", data, "--format", "jsonl").stdout.splitlines()
    ]
    assert all(name in done.stdout for name in names)


def test_a_table_is_of_the_newest_observations_and_says_that_there_are_more(tmp_path):
    archive = Archive(tmp_path / "archive", clock_unix_nano=lambda: NOW)
    for number in range(3):
        of = table(schema(SHAPE), 400, np.random.default_rng(number), time_unix_nano=NOW)
        names = [f"request-{number}-{row}" for row in range(400)]
        archive.consume(batch(replace(of, request_id=names), number=number, received_unix_nano=NOW))
    archive.flush()
    done = run("--data", tmp_path)
    lines = [line for line in done.stdout.splitlines() if "request-" in line]
    assert len(lines) == 1_000
    assert not any("request-0-1 " in line for line in lines)
    assert "request-2-" in lines[-1]
    assert "the newest 1,000 are shown" in done.stderr
    lines = run("--data", tmp_path, "--format", "jsonl", "--signal", "output.margin").stdout.splitlines()
    every = sorted((number, f"request-{number}-{row}") for number in range(3) for row in range(400))
    assert [json.loads(line)["request_id"] for line in lines] == [name for _, name in every]
    one = run("--data", tmp_path, "--request-id", "request-1-7")
    assert ("request-1-7" in one.stdout, one.stderr) == (True, "")


def test_a_table_shows_names_that_look_like_markup_or_commands_as_they_are(tmp_path):
    archive = Archive(tmp_path / "archive", clock_unix_nano=lambda: NOW)
    of = table(schema(SHAPE), 2, np.random.default_rng(1), time_unix_nano=NOW)
    archive.consume(batch(replace(of, request_id=["[/red]x", "\x1b[2Jy"]), received_unix_nano=NOW))
    archive.flush()
    done = run("--data", tmp_path)
    assert done.exit_code == 0
    assert "[/red]x" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\N{REPLACEMENT CHARACTER}[2Jy" in done.stdout


def test_nothing_found_is_no_error(data):
    for form in ("table", "jsonl"):
        assert run("--data", data, "--request-id", "nobody", "--format", form).exit_code == 0
