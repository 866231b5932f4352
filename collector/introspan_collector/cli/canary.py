"""An endpoint in, a round of the canary every so often out, until it is stopped."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from introspan_collector.duration import seconds

if TYPE_CHECKING:
    from introspan_collector.probe.canary import Target
    from introspan_collector.probe.report import Report


def register(app: typer.Typer) -> None:
    """Adds `introspan canary`."""
    app.command("canary")(canary)


def canary(
    url: Annotated[str, typer.Option(help="Address of the vLLM server, such as http://vllm:8000.")],
    collector: Annotated[str, typer.Option(help="Address of the collector.")] = "127.0.0.1:4317",
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
    from introspan_collector.probe.settings import ProbeSettings  # noqa: PLC0415 as above

    interval_seconds = _seconds(interval)
    try:
        ProbeSettings(endpoints=(url,))
        key, api_key, token = canary_key(key_file), secret(api_key_file), secret(token_file)
        report = Report(collector, token, ca_file)
    except (ValueError, OSError) as error:
        _refuse(str(error))
    if key is None:
        typer.echo(
            "introspan canary: without --key-file the server cannot tell these requests from its traffic: "
            "answers are compared, states inside the model are not",
            err=True,
        )
    target = Target(url, model, api_key, key)
    try:
        failed = _repeat(target, report, interval_seconds, rounds)
    except KeyboardInterrupt:
        failed = False
    finally:
        report.close()
    raise typer.Exit(1 if failed else 0)


def _repeat(target: "Target", report: "Report", interval_seconds: float, rounds: int) -> bool:
    """Asks round after round; whether the last one failed."""
    from introspan_collector.probe.canary import ask  # noqa: PLC0415 see canary()
    from introspan_collector.probe.report import Frames, ReportError  # noqa: PLC0415 as above

    frames = Frames()
    done, problem = 0, ""
    while True:
        began = time.monotonic()
        try:
            result = ask(target, lambda name, rows: report.send(frames.frame(name, target.url, rows)))
            said = result.error
        except ReportError as error:
            said = str(error)
        done += 1
        if said != problem:
            typer.echo(f"introspan canary: {said or 'answered again'}", err=True)
        problem = said
        if rounds and done >= rounds:
            return bool(problem)
        time.sleep(max(0.0, interval_seconds - (time.monotonic() - began)))


def _seconds(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        _refuse(f"--interval {error}")


def _refuse(problem: str) -> NoReturn:
    typer.echo(f"introspan canary: {problem}", err=True)
    raise typer.Exit(2)
