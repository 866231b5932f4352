"""Settings: where they come from, and what a mistake is answered with."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from introspan_collector.accept.server import AcceptServer
from introspan_collector.cli.collector import _serve
from introspan_collector.config import ConfigurationError, load_settings


def write(tmp_path, text):
    path = tmp_path / "collector.toml"
    path.write_text(text)
    return path


def test_defaults_are_the_documented_ones():
    settings = load_settings(None, {})
    assert (settings.grpc, settings.http) == ("127.0.0.1:4317", "127.0.0.1:9464")
    assert settings.log.commit == "group"
    assert settings.accept.max_request_bytes == 4 * 2**20


def test_options_win_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    config = write(tmp_path, 'grpc = "file:1"\nhttp = "file:2"\n[log]\nmax_age_seconds = 5\n')
    monkeypatch.setenv("INTROSPAN_COLLECTOR_HTTP", "environment:2")
    monkeypatch.setenv("INTROSPAN_COLLECTOR_LOG__COMMIT", "interval")
    settings = load_settings(config, {"grpc": "option:1", "data": None})
    assert (settings.grpc, settings.http) == ("option:1", "environment:2")
    assert (settings.log.commit, settings.log.max_age_seconds) == ("interval", 5)


MISTAKES = {
    "unknown_key = 1": "unknown_key = 1 is not a setting",
    "[log]\nmax_bytez = 1": "log.max_bytez = 1 is not a setting; remove it or correct its name",
    "[log]\nmax_age_seconds = -1": "log.max_age_seconds: Input should be greater than 0, got -1",
    '[log]\ncommit = "never"': "log.commit: Input should be 'group' or 'interval', got 'never'",
    "[log]\nmax_bytes = 4194304": "log: max_bytes must be at least twice segment_bytes",
    'grpc = "nowhere"': "grpc: must be host:port, for example 127.0.0.1:4317, got 'nowhere'",
    '[accept]\ntls_key_file = "key.pem"': "tls_certificate_file and tls_key_file must be given together",
    "[accept]\nmax_sampling_probability = 2": "accept.max_sampling_probability: Input should be less than",
    "[archive]\nmax_bytes = -5": "archive.max_bytes must be > 0, got -5",
    "[log": "is not TOML",
    "log = 3": "log: must be a table of settings, got 3",
    "detect = 3": "detect: must be a table of settings, got 3",
    '[log]\nmax_bytes = "4GiB"': "log.max_bytes: must be an integer without a unit, got '4GiB'",
    '[notify]\nalertmanagers = "http://a:1"': "notify.alertmanagers: must be a list such as",
    "[aggregate]\nseries_limit = true": "aggregate.series_limit must be a number, got true: give how many",
    "[archive]\nmax_age_seconds = nan": "archive.max_age_seconds must be finite, got nan: give a number",
    "[checkpoint]\ninterval_seconds = inf": "checkpoint.interval_seconds must be finite, got inf",
    "[canary]\ninterval_seconds = inf": "canary.interval_seconds must be finite, got inf",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_answered_with_key_value_and_remedy(tmp_path, text):
    with pytest.raises(ConfigurationError) as error:
        load_settings(write(tmp_path, text), {})
    assert MISTAKES[text] in str(error.value)


def test_a_mistake_in_a_section_is_said_once_and_repeats_no_secret_of_it(tmp_path):
    text = '[notify]\nwebhooks = ["ftp://x"]\nalertmanager_headers = {Authorization = "Bearer secret"}\n'
    with pytest.raises(ConfigurationError) as error:
        load_settings(write(tmp_path, text), {})
    assert str(error.value) == "notify: notify.webhooks must be http(s)://host[:port][/path], got 'ftp://x'"


def test_a_file_in_another_encoding_is_no_toml(tmp_path):
    path = tmp_path / "collector.toml"
    path.write_bytes(b"data = '\xfc'\n")
    with pytest.raises(ConfigurationError, match=r"--config .* is not TOML: .*; save it in UTF-8"):
        load_settings(path, {})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LOG", "abc", '"log".*; set single keys, such as INTROSPAN_COLLECTOR_LOG__MAX_BYTES'),
        ("ARCHIVE__MAX_AGE_SECONDS", "nan", "archive.max_age_seconds must be finite, got nan"),
        ("NOTIFY__ALERTMANAGERS", "http://a:1", "notify.alertmanagers: must be a list such as"),
        ("DETECT__ENABLED", "perhaps", "detect.enabled: must be true or false, got 'perhaps'"),
    ],
)
def test_a_variable_that_cannot_be_used_is_a_mistake(monkeypatch, name, value, expected):
    monkeypatch.setenv(f"INTROSPAN_COLLECTOR_{name}", value)
    with pytest.raises(ConfigurationError, match=expected):
        load_settings(None, {})


def test_a_variable_that_is_no_setting_is_a_mistake(monkeypatch):
    monkeypatch.setenv("INTROSPAN_COLLECTOR_GPRC", "127.0.0.1:1")
    with pytest.raises(
        ConfigurationError, match="INTROSPAN_COLLECTOR_GPRC is not a setting; known are data, grpc"
    ):
        load_settings(None, {})


def run(*options):
    program = str(Path(sys.executable).with_name("introspan"))
    return subprocess.run(
        [program, "collector", *options], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.thorough
def test_mistakes_end_the_collector_with_exit_code_2_and_one_clear_line(tmp_path):
    data = ["--data", str(tmp_path / "data")]
    (tmp_path / "file").write_text("")
    for options, expected in (
        (
            ["--config", "/absent.toml", *data],
            "--config /absent.toml cannot be read: No such file or directory",
        ),
        (["--http", "127.0.0.1:99999", *data], "http = 127.0.0.1:99999 cannot be bound"),
        (["--grpc", "192.0.2.1:1", "--http", "127.0.0.1:0", *data], "grpc = 192.0.2.1:1 cannot be bound"),
        (["--data", str(tmp_path / "file" / "below")], "file/below cannot be written: Not a directory"),
    ):
        result = run(*options)
        assert result.returncode == 2, result.stderr
        assert expected in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("key", ["alertmanager_token_file", "webhook_token_file", "webhook_secret_file"])
def test_a_file_of_secrets_that_is_not_there_ends_the_collector_at_its_start(tmp_path, key):
    config = write(tmp_path, f'[notify]\n{key} = "/no/such"\n')
    settings = load_settings(config, {"data": tmp_path, "grpc": "127.0.0.1:0", "http": "127.0.0.1:0"})
    with pytest.raises(ConfigurationError, match=f"notify.{key} = /no/such cannot be read: .*; name a file"):
        asyncio.run(_serve(settings))


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "log").write_text("")
    settings = load_settings(None, {"data": tmp_path, "grpc": "127.0.0.1:0", "http": "127.0.0.1:0"})
    with pytest.raises(
        ConfigurationError, match=r"data = .* cannot be used: .*File exists.*; choose a folder"
    ):
        asyncio.run(_serve(settings))


def test_a_port_that_is_none_is_not_taken_modulo_65536():
    async def serve():
        AcceptServer(None, "127.0.0.1:99999", max_request_bytes=2**20)

    with pytest.raises(RuntimeError, match="99999 is no port"):
        asyncio.run(serve())


def test_without_the_extra_the_command_says_what_to_install(tmp_path):
    # A module that cannot be imported stands for the extra that is not installed.
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('No module named typer', name='typer')")
    code = "from introspan_collector.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert result.returncode == 2
    assert "; install it with: pip install 'introspan[collector]'. " in result.stderr
    assert result.stderr.strip().endswith("`python -m introspan.doctor MODEL` works without it")
