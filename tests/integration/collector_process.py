"""A folder in, the collector as operators run it out."""

import resource
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


def program():
    """The console script of this environment."""
    return str(Path(sys.executable).with_name("introspan"))


class Collector:
    """A collector process on a folder, started again as often as wanted."""

    def __init__(self, folder, free_port, config=""):
        self.folder = folder
        self.grpc, self.http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.config = folder / "collector.toml"
        self.config.write_text(config)
        self.process = None

    def start(self, **limits):
        command = [program(), "collector", "--config", self.config, "--data", self.folder / "data"]
        with (self.folder / "collector.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--grpc", self.grpc, "--http", self.http], stdout=log, stderr=log, **limits
            )
        self.wait_ready()

    def wait_ready(self):
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.get("/readyz")
            except OSError:
                assert self.process.poll() is None, (self.folder / "collector.log").read_text()
                assert time.monotonic() < deadline, "the collector was not ready within 60 s"
                time.sleep(0.02)

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as reply:
            return reply.read().decode()

    def metric(self, name, **labels):
        """Sum of the samples of a metric that have these labels."""
        total = 0.0
        for line in self.get("/metrics").splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def wait_processed(self):
        deadline = time.monotonic() + 30
        while self.metric("introspan_collector_lag_bytes"):
            assert time.monotonic() < deadline, "the consumers did not catch up within 30 s"
            time.sleep(0.05)

    def output(self):
        """What the collector has written to its standard output and error so far."""
        return (self.folder / "collector.log").read_text()

    def resident_bytes(self):
        """Memory of the process that is in RAM."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()
