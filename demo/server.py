"""A checkpoint's folder in, vLLM's server of it out, on the same address whatever is served."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from demo.health import until_healthy, until_shown_healthy
from demo.processes import Program, start

MODEL = "smollm2-135m-instruct"
PATIENCE_SECONDS = 4.0
"""vLLM leaves requests unanswered when it is told to end, and then waits for their connections for ever."""

_DRAIN_SECONDS = 20.0
_PICTURE_SECONDS = 1.5
_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(slots=True)
class ModelServer:
    """Starts the server as anybody would: only its environment says that Introspan is there.

    quiet is set while no request of ours is under way, may_ask while the server answers.
    """

    folder: Path
    port: int
    environment: Mapping[str, str]
    quiet: asyncio.Event
    clock: Callable[[], float] = time.monotonic
    may_ask: asyncio.Event = field(default_factory=asyncio.Event)
    doing: str = ""
    """What is being done to it now, "" for nothing."""
    _running: ExitStack = field(default_factory=ExitStack)
    _program: Program | None = None
    _starts: int = 0
    _away_seconds: float = 0.0
    _away_since: float | None = None

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def program(self) -> Program | None:
        """What is running, None while it is being exchanged."""
        return self._program if self._away_since is None else None

    @property
    def away_seconds(self) -> float:
        """How long it has not answered because it was being exchanged."""
        now = 0.0 if self._away_since is None else self.clock() - self._away_since
        return self._away_seconds + now

    @asynccontextmanager
    async def serving(self, model: Path, console: Console) -> AsyncIterator["ModelServer"]:
        """Serves a checkpoint, and on leaving ends whatever is served then."""
        with self._running:
            await until_shown_healthy(self._start(model), f"{self.address}/health", console)
            self.may_ask.set()
            yield self

    async def exchange(self, model: Path) -> None:
        """Ends the server once it is idle, and starts it from another checkpoint. Raises DemoError."""
        self.may_ask.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.quiet.wait(), _DRAIN_SECONDS)
        self._away_since = self.clock()
        self.doing = "the server is being stopped"
        await asyncio.sleep(_PICTURE_SECONDS)  # the picture stands still while it is being stopped
        self._running.close()

        def tell(waited: float) -> None:
            self.doing = f"the server is starting from {model.name}, {waited:.0f} s"

        await until_healthy(self._start(model), f"{self.address}/health", tell)
        self._away_seconds, self._away_since, self.doing = self.away_seconds, None, ""
        self.may_ask.set()

    def _start(self, model: Path) -> Program:
        self._starts += 1
        command: Sequence[str | Path] = (
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", model, "--served-model-name", MODEL),
            *("--dtype", "float32", "--enforce-eager"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
        )
        name = "vllm" if self._starts == 1 else f"vllm-{self._starts}"
        environment = {**_ENVIRONMENT, **self.environment}
        self._program = self._running.enter_context(
            start(name, command, environment, self.folder, PATIENCE_SECONDS)
        )
        return self._program
