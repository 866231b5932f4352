"""What `introspan` says of itself and of mistakes, where only the SDK is installed too, and what it computes with."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

# As if the extra were not installed: a module whose entry is None cannot be imported.
_WITHOUT_EXTRA = "import sys; sys.modules['typer'] = None; "


def test_a_missing_extra_is_named_with_what_works_without_it():
    script = _WITHOUT_EXTRA + "from introspan_collector.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'introspan[collector]'" in done.stderr
    assert "`python -m introspan.doctor MODEL` works without it" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_doctor_works_without_the_extra():
    script = _WITHOUT_EXTRA + (
        "sys.modules['torch'] = None; import runpy; sys.argv = ['doctor', 'any']; "
        "runpy.run_module('introspan.doctor', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={"PATH": ""}
    )
    assert done.returncode == 1, done.stderr
    assert "set INTROSPAN_ENDPOINT=host:4317 to switch it on" in done.stdout
    assert "not captured: capture: torch is not installed here" in done.stdout


def test_every_command_computes_with_one_thread_of_blas_unless_told_otherwise():
    script = (
        "import sys, introspan_collector.cli as cli\n"
        "assert 'numpy' not in sys.modules\n"
        "sys.argv = ['introspan', '-h']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "import numpy as np; np.linalg.eigvalsh(np.eye(512)); import os; print(len(os.listdir('/proc/self/task')))"
    )
    own = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    for more, threads in (({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2)):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=own | more
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.splitlines()[-1]) == threads


def run(*options, cwd=None):
    script = "import sys, introspan_collector.cli as cli; sys.argv[0] = 'introspan'; cli.main()"
    command = [sys.executable, "-c", script, *options]
    wide = {"COLUMNS": "300", "NO_COLOR": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | wide, cwd=cwd
    )


def test_the_version_is_that_of_the_installed_package():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"introspan {version('introspan')}\n")


@pytest.mark.parametrize(
    ("command", "default"),
    [
        (("canary",), "Name of the served model [the first]."),
        (("alarms", "ack"), "Who looks after it [you]."),
        (("reference", "show"), "Name of the adapter [the model alone]."),
    ],
)
def test_help_shows_the_defaults_that_it_says_in_words(command, default):
    done = run(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert default in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("canary", "--url", "vllm"), "canary: --url must be http(s)://host[:port], got 'vllm'"),
        (("canary", "--url", "http://h:99999"), "canary: --url must be http(s)://host[:port], got"),
        (("canary", "--url", "http://h", "--interval", "0s"), "canary: --interval must be > 0, got 0s"),
        (("observations", "--since", "36501d"), "is too long a duration: give at most 36500d"),
        (("observations", "--since", f"{10**400}s"), "is too long a duration"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_and_ends_with_2(tmp_path, options, said):
    (tmp_path / "introspan-data" / "log").mkdir(parents=True)
    done = run(*options, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
