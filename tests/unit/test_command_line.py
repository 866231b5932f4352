"""What `introspan` says where only the SDK is installed."""

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
    assert done.returncode == 0, done.stderr
    assert "set INTROSPAN_ENDPOINT=host:4317 to switch it on" in done.stdout
