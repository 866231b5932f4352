"""An endpoint in, a round of the canary every so often out, until it is stopped."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from introspan_collector.client import Client, ClientError
from introspan_collector.duration import seconds

if TYPE_CHECKING:
    from introspan_collector.probe.canary import Asker, Target
    from introspan_collector.probe.report import Report

_HTTP_PORT = 9464
_LOOK_SECONDS = 1.0


def register(app: typer.Typer) -> None:
    """Adds `introspan canary`."""
    app.command("canary")(canary)


def canary(
    url: Annotated[str, typer.Option(help="Address of the vLLM server, such as http://vllm:8000.")],
    collector: Annotated[str, typer.Option(help="Address of the collector.")] = "127.0.0.1:4317",
    collector_url: Annotated[
        str | None,
        typer.Option(
            help="Address of the collector's API, which says when a round is wanted at once; '' asks at the interval "
            "alone [host of --collector, port 9464].",
        ),
    ] = None,
    interval: Annotated[str, typer.Option(help="Time between rounds: 60s, 5m.")] = "60s",
    rounds: Annotated[int, typer.Option(help="End after so many rounds; 0: go on.", min=0)] = 0,
    model: Annotated[str, typer.Option(help="Name of the served model [the first].")] = "",
    api_key_file: Annotated[Path | None, typer.Option(help="File with the server's API key.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the secret shared with the server (INTROSPAN_CANARY_KEY).")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the collector's bearer token.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="PEM file of the collector's authority: TLS.")] = None,
) -> None:
    """Asks a served model known questions, so that the collector can tell whether it still answers the same."""
    from introspan_collector.probe.canary import Target  # noqa: PLC0415 other commands should not pay for gRPC
    from introspan_collector.probe.report import Report  # noqa: PLC0415 as above
    from introspan_collector.probe.secret import canary_key, secret  # noqa: PLC0415 as above
    from introspan_collector.probe.settings import check_endpoint  # noqa: PLC0415 as above

    interval_seconds = _seconds(interval, rounds)
    url_of_api = _beside(collector) if collector_url is None else collector_url
    with ExitStack() as stack:
        try:
            check_endpoint("--url", url)
            key, api_key, token = canary_key(key_file), secret(api_key_file), secret(token_file)
            wanted = _Wanted(stack.enter_context(Client(url_of_api)) if url_of_api else None)
            report = Report(collector, token, ca_file)
        except (ValueError, OSError) as error:
            _refuse(str(error))
        stack.callback(report.close)
        if key is None:
            _say(
                "without --key-file the server cannot tell these requests from its traffic: "
                "answers are compared, states inside the model are not"
            )
        try:
            failed = _repeat(
                _asker(Target(url, model, api_key, key), report), wanted, interval_seconds, rounds
            )
        except KeyboardInterrupt:
            failed = False
    raise typer.Exit(1 if failed else 0)


class _Wanted:
    """Asks a collector whether a model's canary is to be asked at once; says once that there is no telling."""

    def __init__(self, client: Client | None) -> None:
        self._client = client
        self._problem = ""

    def by(self, model: str) -> bool:
        """Whether a first round deviates, or an alarm waits for what the canary says."""
        if self._client is None:
            return False
        problem, wanted = "", False
        try:
            found = self._client.get("canaries", model=model)["canaries"]
            wanted = any(one["wanted"] for one in found)
        except (ClientError, KeyError, TypeError) as error:
            why = error.__cause__ or error
            problem = f"the collector's API does not say when it wants a round, give --collector-url ({why})"
        if problem and not self._problem:
            _say(problem)
        self._problem = problem
        return wanted


def _asker(target: "Target", report: "Report") -> "Asker":
    from introspan_collector.probe.canary import Asker  # noqa: PLC0415 see canary()
    from introspan_collector.probe.report import Frames  # noqa: PLC0415 as above

    frames = Frames(target.url, signed=target.key is not None)
    return Asker(target, lambda model, rank, rows: report.send(frames.frame(model, rank, rows)))


def _repeat(asker: "Asker", wanted: _Wanted, interval_seconds: float, rounds: int) -> bool:
    """Asks round after round; whether the last one failed."""
    from introspan_collector.probe.report import ReportError  # noqa: PLC0415 see canary()

    done, problem, model = 0, "", ""
    while True:
        began = time.monotonic()
        try:
            results = asker.ask()
            said = next((one.error for one in results if one.error), "")
            model = next((one.model for one in results if one.model), model)
        except ReportError as error:
            said = str(error)
        done += 1
        if said != problem:
            _say(said or "answered again")
        problem = said
        if rounds and done >= rounds:
            return bool(problem)
        _wait(began + interval_seconds, wanted, model)


def _wait(until: float, wanted: _Wanted, model: str) -> None:
    """Returns then, or when a round is wanted at once."""
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_SECONDS))
        if model and time.monotonic() < until and wanted.by(model):
            return


def _beside(collector: str) -> str:
    """Where the collector's API is that takes observations at this address, unless it was told otherwise."""
    return f"http://{collector.rpartition(':')[0] or collector}:{_HTTP_PORT}"


def _say(text: str) -> None:
    typer.echo(f"introspan canary: {text}", err=True)


def _seconds(text: str, rounds: int) -> float:
    try:
        wanted = seconds(text)
    except ValueError as error:
        _refuse(f"--interval {error}")
    # A few rounds may follow one another at once; rounds without end would be all that the server does.
    if not wanted and not rounds:
        _refuse(f"--interval must be > 0, got {text}: give the time between rounds, for example 60s")
    return wanted


def _refuse(problem: str) -> NoReturn:
    _say(problem)
    raise typer.Exit(2)
