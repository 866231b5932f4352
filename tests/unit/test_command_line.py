"""What `introspan` says where only the SDK is installed, and what it computes with."""

import os
import subprocess
import sys

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
