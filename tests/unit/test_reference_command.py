"""What `introspan reference` says of files, without a collector, and commands of what is no collector."""

import json
import os
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import typer
from typer.testing import CliRunner

from introspan_collector.cli import alarms, reference
from introspan_collector.detect.reference.builder import Builder
from introspan_collector.detect.reference.file import content_hash, to_bytes
from introspan_collector.detect.reference.reference import Identity, State
from introspan_collector.detect.sample import samples
from tests.batches import ORIGIN, Traffic

APP = typer.Typer()
reference.register(APP)
alarms.register(APP)


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


@pytest.fixture
def serve():
    """Has the same answered to every call, as whoever listens at a collector's address may; gives the address."""
    running = []

    def begin(answer):
        class Always(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_POST(self):
                self.do_GET()

            def log_message(self, *_):
                pass

        running.append(ThreadingHTTPServer(("127.0.0.1", 0), Always))
        threading.Thread(target=running[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}"

    yield begin
    for server in running:
        server.shutdown()
        server.server_close()


def asked(*command):
    done = CliRunner().invoke(APP, [*map(str, command)])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1, done.output
    return done.stderr


def test_what_is_no_reference_is_never_written_over_a_good_one(file, serve):
    kept = file.read_bytes()
    for command in ("export", "build"):
        url = serve(b"<html>please log in</html>")
        said = asked("reference", command, "--model", "m", "--output", file, "--url", url)
        assert "is no collector, or of another version: reference of 26 bytes cannot be read" in said
    assert file.read_bytes() == kept


def test_a_reference_is_written_whole_or_not_at_all(found, file, serve):
    kept = file.read_bytes()
    # What the copy would be written to is taken.
    file.with_name("one.zip.partial").mkdir()
    data = to_bytes(found)
    said = run("export", "--model", "m", "--output", file, "--url", serve(data), code=2)
    assert "one.zip cannot be written: Is a directory" in said
    assert file.read_bytes() == kept
    file.with_name("one.zip.partial").rmdir()
    file.write_bytes(b"older")
    run("export", "--model", "m", "--output", file, "--url", serve(data))
    assert file.read_bytes() == data
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    "command",
    [
        ("alarms", "list"),
        ("alarms", "show", "id"),
        ("alarms", "ack", "id"),
        ("alarms", "announce", "--reason", "new", "--for", "1m"),
        ("alarms", "windows"),
        ("reference", "list"),
        ("reference", "promote", "--model", "m"),
    ],
)
@pytest.mark.parametrize(
    "answer", [b"[]", b"{}", b"null", b"\xff\xfe", b"", b'{"alarms": [{}], "windows": 3}']
)
def test_an_answer_of_somebody_else_ends_with_the_address_and_a_remedy(serve, command, answer):
    url = serve(answer)
    said = asked(*command, "--url", url)
    assert url in said
    assert "as a collector of this version does" in said or "give the address of a collector" in said


def test_a_token_that_no_header_can_hold_is_refused_by_its_file_and_not_repeated(tmp_path):
    (tmp_path / "token").write_text("sécret\n")
    said = run("list", "--token-file", tmp_path / "token", code=2)
    assert "--token-file" in said
    assert "must hold a token of printable ASCII" in said
    assert "cret" not in said


def test_a_user_without_a_name_is_asked_for_one(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 2)
    done = CliRunner().invoke(APP, ["alarms", "ack", "id"])
    assert done.exit_code == 2, done.exception
    assert "--by must name somebody" in done.stderr
