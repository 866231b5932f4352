"""Starts collector and vLLM, sends requests, shows what Introspan sees; ends what it started."""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from demo.health import until_healthy
from demo.model import cache_folder, prepare
from demo.processes import DemoError, Program, loopback_port, start
from demo.show import Plan, Show

_MODEL = "smollm2-135m-instruct"
_PATIENCE_SECONDS = 20.0
_VLLM_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


def main() -> int:
    """Runs the demonstration; 0 when it ended as asked, Ctrl-C included."""
    started_seconds = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m demo.run")
    parser.add_argument("--seconds", type=float, help="end this long after the server is ready")
    parser.add_argument("--screenshot", type=Path, help="write the last screen to this SVG file")
    parser.add_argument("--seed", type=int, default=0, help="of the requests")
    plan = Plan(model=_MODEL, **vars(parser.parse_args()))
    console = Console(highlight=False)
    try:
        folder = prepare(cache_folder(), lambda line: console.print(line, markup=False))
        asyncio.run(_demonstrate(plan, folder, console, started_seconds))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("ended early; nothing that the demonstration started is left running")
    except DemoError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    return 0


async def _demonstrate(plan: Plan, model: Path, console: Console, started_seconds: float) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    grpc, http, openai = (_port(preferred, console) for preferred in (4317, 9464, 8000))
    with tempfile.TemporaryDirectory(prefix="introspan-demo-") as scratch:
        folder = Path(scratch)
        async with (
            _collector(folder, grpc, http, console) as collector,
            _vllm(folder, model, openai, grpc, console) as vllm,
        ):
            addresses = (f"http://127.0.0.1:{http}", f"http://127.0.0.1:{openai}")
            await Show(plan, console, (collector, vllm), *addresses, started_seconds).run()


def _port(preferred: int, console: Console) -> int:
    port = loopback_port(preferred)
    if port != preferred:
        console.print(f"port {preferred} is taken, using {port}")
    return port


@asynccontextmanager
async def _collector(folder: Path, grpc: int, http: int, console: Console) -> AsyncIterator[Program]:
    command: Sequence[str | Path] = (
        *(Path(sys.executable).with_name("introspan"), "collector"),
        *("--data", folder / "data"),
        *("--grpc", f"127.0.0.1:{grpc}", "--http", f"127.0.0.1:{http}"),
    )
    with start("collector", command, {}, folder, _PATIENCE_SECONDS) as program:
        await until_healthy(program, f"http://127.0.0.1:{http}/readyz", console)
        yield program


@asynccontextmanager
async def _vllm(folder: Path, model: Path, port: int, grpc: int, console: Console) -> AsyncIterator[Program]:
    """The server as anybody would start it: only the environment says that Introspan is there."""
    command: Sequence[str | Path] = (
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model, "--served-model-name", _MODEL),
        *("--dtype", "float32", "--enforce-eager"),
        *("--host", "127.0.0.1", "--port", str(port)),
    )
    environment = {**_VLLM_ENVIRONMENT, "INTROSPAN_ENDPOINT": f"127.0.0.1:{grpc}"}
    with start("vllm", command, environment, folder, _PATIENCE_SECONDS) as program:
        await until_healthy(program, f"http://127.0.0.1:{port}/health", console)
        yield program


if __name__ == "__main__":
    sys.exit(main())
