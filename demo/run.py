"""Starts collector and vLLM, sends requests, shows what Introspan sees; ends what it started."""

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from demo import collector_settings
from demo.callers import chats
from demo.faults import DamagedLayer, Fault, FaultName, HotSampler, NewTraffic, NoFault, write_wrong_sampler
from demo.health import until_shown_healthy
from demo.model import cache_folder, prepare
from demo.phases import Director
from demo.positive import positive
from demo.processes import DemoError, PortTakenError, Program, loopback_port, start
from demo.server import MODEL, ModelServer
from demo.show import Plan, Show
from demo.stage import Stage
from demo.traffic import Tally
from demo.view import COLUMNS

COLLECTOR_PATIENCE_SECONDS = 20.0
"""Twice what it takes at most to process what it has accepted."""

_ATTEMPTS = 3
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Options:
    seconds: float | None
    screenshot: Path | None
    seed: int
    fault: FaultName
    build_reference: bool


def main() -> int:
    """Runs the demonstration; 0 when it ended as asked, Ctrl-C included."""
    started_seconds = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m demo.run")
    parser.add_argument("--seconds", type=positive, help="end this long after the server is ready")
    parser.add_argument("--screenshot", type=Path, help="write the last screen to this SVG file")
    parser.add_argument("--seed", type=int, default=0, help="of the requests")
    parser.add_argument("--fault", default=FaultName.TRAFFIC.value, choices=[one.value for one in FaultName])
    parser.add_argument(
        "--build-reference", action="store_true", help="only collect a reference for later demonstrations"
    )
    given = vars(parser.parse_args())
    options = _Options(**given | {"fault": FaultName(given["fault"])})
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=COLUMNS)
    try:
        folder = prepare(cache_folder(), lambda line: console.print(line, markup=False))
        on_free_ports(
            lambda: asyncio.run(_demonstrate(options, folder, console, started_seconds)), console.print
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("ended early; nothing that the demonstration started is left running")
    except DemoError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    return 0


def on_free_ports(attempt: Callable[[], None], say: Callable[[str], None], attempts: int = _ATTEMPTS) -> None:
    """Makes an attempt, and another on other ports where somebody took one meanwhile. Raises what the last one does."""
    for _ in range(attempts - 1):
        try:
            attempt()
        except PortTakenError:
            say("somebody took a port before it was listened on; starting anew with another")
        else:
            return
    attempt()


async def _demonstrate(options: _Options, model: Path, console: Console, started_seconds: float) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    grpc, http, openai = (_port(preferred, console) for preferred in (4317, 9464, 8000))
    with tempfile.TemporaryDirectory(prefix="introspan-demo-") as scratch:
        folder = Path(scratch)
        key_file = folder / "canary.key"
        key_file.write_text(secrets.token_hex(_KEY_BYTES), encoding="utf-8")
        flag, plugin = write_wrong_sampler(folder / "plugin")
        environment = {
            "INTROSPAN_ENDPOINT": f"127.0.0.1:{grpc}",
            "INTROSPAN_CANARY_KEY": key_file.read_text(encoding="utf-8"),
            # What is injected comes from outside the product, and only where it was asked for.
            **(plugin if options.fault is FaultName.SAMPLER else {}),
        }
        tally = Tally()
        server = ModelServer(folder, openai, environment, tally.quiet)
        config = collector_settings.write(folder, key_file, openai, is_building=options.build_reference)
        async with (
            _collector(folder, config, grpc, http, console) as collector,
            server.serving(model, console),
        ):
            fault = _fault(options, server, model, flag)
            # The same file is read at the next demonstration; building one, an older one is of no use.
            saved = cache_folder().parent / "references" / f"{model.name}.zip"
            known = saved if saved.exists() and not options.build_reference else None
            director = Director(not isinstance(fault, NoFault), fault.is_reversible)
            stage = Stage(MODEL, server, fault, director, known)
            source = chats(MODEL, options.seed, lambda: isinstance(fault, NewTraffic) and fault.is_on)
            plan = Plan(
                MODEL, options.seconds, options.screenshot, saved if options.build_reference else None
            )
            address = f"http://127.0.0.1:{http}"
            await Show(plan, console, collector, address, stage, source, tally, started_seconds).run()


def _fault(options: _Options, server: ModelServer, healthy: Path, flag: Path) -> Fault:
    if options.build_reference or options.fault is FaultName.NONE:
        return NoFault()
    if options.fault is FaultName.TRAFFIC:
        return NewTraffic()
    if options.fault is FaultName.SAMPLER:
        return HotSampler(flag)
    return DamagedLayer(server.exchange, healthy, cache_folder())


def _port(preferred: int, console: Console) -> int:
    port = loopback_port(preferred)
    if port != preferred:
        console.print(f"port {preferred} is taken, using {port}")
    return port


@asynccontextmanager
async def _collector(
    folder: Path, config: Path, grpc: int, http: int, console: Console
) -> AsyncIterator[Program]:
    command: Sequence[str | Path] = (
        *(Path(sys.executable).with_name("introspan"), "collector"),
        *("--config", config, "--data", folder / "data"),
        *("--grpc", f"127.0.0.1:{grpc}", "--http", f"127.0.0.1:{http}"),
    )
    with start("collector", command, {}, folder, COLLECTOR_PATIENCE_SECONDS) as program:
        await until_shown_healthy(program, f"http://127.0.0.1:{http}/readyz", console)
        yield program


if __name__ == "__main__":
    sys.exit(main())
