"""Options in, a collector that runs until SIGTERM out."""

import asyncio
import contextlib
import gc
import io
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import structlog
import typer

if TYPE_CHECKING:
    from introspan_collector.config import Settings


def register(app: typer.Typer) -> None:
    """Adds `introspan collector`."""
    app.command("collector")(collector)


def collector(
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder for log, archive and cursors.")] = None,
    grpc: Annotated[str | None, typer.Option(help="Address for observations [127.0.0.1:4317].")] = None,
    http: Annotated[
        str | None, typer.Option(help="Address for /metrics and the API [127.0.0.1:9464].")
    ] = None,
) -> None:
    """Accepts observations, keeps them, aggregates them and exposes what they say."""
    # Imported here: the other commands should not pay for gRPC and DuckDB.
    from introspan_collector.config import ConfigurationError, load_settings  # noqa: PLC0415 as above

    _log_to_stderr()
    try:
        settings = load_settings(config, {"data": data, "grpc": grpc, "http": http})
        asyncio.run(_serve(settings))
    except ConfigurationError as error:
        typer.echo(f"introspan collector: {error}", err=True)
        raise typer.Exit(2) from error


def _log_to_stderr() -> None:
    # Plain: the local variables of a traceback are observations, which do not belong into a log.
    plain = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    processors = [*structlog.get_config()["processors"][:-1], plain]
    structlog.configure(
        processors=processors, logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr()))
    )


class _Stderr(io.TextIOBase):
    """Standard error as long as it takes anything: a full disk must not end the thread that logs it."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


async def _serve(settings: "Settings") -> None:
    from introspan_collector.config import ConfigurationError  # noqa: PLC0415 see collector()
    from introspan_collector.pipeline import Pipeline  # noqa: PLC0415 as above

    log = structlog.get_logger(__name__)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        pipeline = Pipeline(settings)
    except OSError as error:
        raise ConfigurationError(
            f"data = {settings.data} cannot be used: {error}; choose a folder of this collector's own"
        ) from error
    grpc_port, http_port = await pipeline.start()
    # What exists now stays: the garbage collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    log.info("collector ready", grpc_port=grpc_port, http_port=http_port, data=str(settings.data))
    await stopping.wait()
    log.info("collector draining")
    await pipeline.drain()
    # Else DuckDB's extension finds its objects alive at the end of the process, and complains of each of them.
    gc.unfreeze()
    log.info("collector stopped")
