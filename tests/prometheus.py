"""The address of a collector in, a real Prometheus that scrapes it every second out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from demo.processes import start
from tests.patience import until_answering

_STOP_SECONDS = 20.0


@contextmanager
def scraping(target: str, folder: Path, program: Path, port: int) -> Iterator[Callable[..., Any]]:
    """A Prometheus, as a function from a path of its API and parameters to what it answers."""
    configuration = folder / "prometheus.yml"
    configuration.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: introspan, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    address = f"127.0.0.1:{port}"
    command = (
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
    )

    def ask(path: str, **parameters: str | float) -> Any:
        answer = client.get(f"http://{address}/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    with (
        # One for all calls: making one takes longer than an answer.
        httpx.Client(timeout=10) as client,
        start("prometheus", command, {}, folder, _STOP_SECONDS) as started,
    ):
        until_answering(started, f"http://{address}/-/ready")
        yield ask
