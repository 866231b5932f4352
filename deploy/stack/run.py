"""Starts collector, Prometheus and Alertmanager on loopback, says what is where; ends what it started."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx

from demo.processes import DemoError, Program, start
from deploy.stack.addresses import Addresses, free_addresses
from deploy.stack.programs import commands

_PATIENCE_SECONDS = 20.0
_START_SECONDS = 60.0
_POLL_SECONDS = 0.2
_WHERE = """\
collector     http://{collector}   takes observations at {grpc}
prometheus    http://{prometheus}   what fires: http://{prometheus}/api/v1/alerts
alertmanager  http://{alertmanager}   what it knows: http://{alertmanager}/api/v2/alerts
data          {data}

A vLLM server with Introspan in it sends here with INTROSPAN_ENDPOINT={grpc}. Ctrl-C ends all three.
"""


def main() -> int:
    """Runs until Ctrl-C; 0 when it ended as asked."""
    parser = argparse.ArgumentParser(prog="python -m deploy.stack.run", description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="keep data in this folder [a temporary one, removed at the end]"
    )
    data = parser.parse_args().data
    # Whoever ends it otherwise wants the three ended as well.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="introspan-stack-") as scratch:
            _run(Path(scratch), (data or Path(scratch) / "data").resolve())
    except KeyboardInterrupt:
        print("ended; nothing that was started is left running")
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(scratch: Path, data: Path) -> None:
    at = free_addresses()
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(
            f"--data {data} cannot be written: {error.strerror}; choose a folder that can"
        ) from error
    with ExitStack() as stack:
        running: list[Program] = []
        for one in commands(at, data, scratch):
            running.append(stack.enter_context(start(one.name, one.words, {}, scratch, _PATIENCE_SECONDS)))
            _until_ready(running, one.ready)
        print(_said(at, data), flush=True)
        while True:
            _check(running)
            time.sleep(_POLL_SECONDS)


def _said(at: Addresses, data: Path) -> str:
    return _WHERE.format(
        collector=at.collector,
        grpc=at.grpc,
        prometheus=at.prometheus,
        alertmanager=at.alertmanager,
        data=data,
    )


def _until_ready(running: Sequence[Program], address: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        _check(running)
        try:
            if httpx.get(address, timeout=5.0).is_success:
                return
        except httpx.TransportError as error:
            if time.monotonic() > until:
                raise DemoError(f"{address} does not answer: {error}\n{running[-1].log_tail(20)}") from error
        time.sleep(_POLL_SECONDS)


def _check(running: Sequence[Program]) -> None:
    for program in running:
        if program.ended():
            raise DemoError(f"{program.name} ended:\n{program.log_tail(20)}")


if __name__ == "__main__":
    sys.exit(main())
