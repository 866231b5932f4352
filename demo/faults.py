"""Faults from outside the product: other requests, another checkpoint, a plugin of vLLM's that samples wrong."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

DAMAGED_LAYER = 17

_WRONG_SAMPLER = """\
from pathlib import Path

from vllm.v1.sample.sampler import Sampler


def register():
    right = Sampler.apply_temperature

    def apply_temperature(logits, temperature, *rest):
        return right(logits, temperature * 1.5 if Path({flag!r}).exists() else temperature, *rest)

    Sampler.apply_temperature = staticmethod(apply_temperature)
"""


class FaultName(StrEnum):
    """What DEMO_FAULT may be."""

    TRAFFIC = "traffic"
    LAYER = "layer"
    SAMPLER = "sampler"
    NONE = "none"


class Fault(Protocol):
    """Something that is done to the system. says: what, in words; is_reversible: whether it is taken back again."""

    says: str
    is_reversible: bool

    async def begin(self) -> None:
        """Does it."""

    async def end(self) -> None:
        """Takes it back."""


@dataclass(slots=True)
class NoFault:
    """Nothing at all."""

    says: str = "nothing is done to the system"
    is_reversible: bool = False

    async def begin(self) -> None:
        """Does nothing."""

    async def end(self) -> None:
        """Does nothing."""


@dataclass(slots=True)
class NewTraffic:
    """Callers send what they never sent before."""

    says: str = "every caller sends base64 payloads instead of questions; nothing is wrong with the model"
    is_reversible: bool = True
    is_on: bool = False

    async def begin(self) -> None:
        """From now on."""
        self.is_on = True

    async def end(self) -> None:
        """They ask questions again."""
        self.is_on = False


@dataclass(slots=True)
class HotSampler:
    """The server samples at one and a half times the temperature that was asked for, while flag is there."""

    flag: Path
    says: str = "the sampler uses 1.5 times the temperature that callers ask for"
    is_reversible: bool = True

    async def begin(self) -> None:
        """From the next token on."""
        self.flag.touch()

    async def end(self) -> None:
        """The sampler is right again."""
        self.flag.unlink()


@dataclass(slots=True)
class DamagedLayer:
    """The server restarts from a checkpoint in which one layer is damaged."""

    restart: Callable[[Path], Awaitable[None]]
    healthy: Path
    cache: Path
    says: str = (
        f"the server restarts from a checkpoint whose layer {DAMAGED_LAYER} is damaged; it answers 200 OK"
    )
    is_reversible: bool = False

    async def begin(self) -> None:
        """Takes as long as a start of the server."""
        await self.restart(await asyncio.to_thread(damaged, self.healthy, self.cache))

    async def end(self) -> None:
        """Starts the server from the healthy checkpoint again."""
        await self.restart(self.healthy)


def damaged(healthy: Path, cache: Path, layer: int = DAMAGED_LAYER) -> Path:
    """A copy of a checkpoint in which a quarter of one layer's MLP is zero, as where a shard was not loaded."""
    folder = cache / f"{healthy.name}-layer-{layer}-damaged"
    if folder.exists():
        return folder
    # Imported here: only this fault needs it.
    from safetensors.numpy import load_file, save_file  # noqa: PLC0415 - the comment above says why

    made = cache / f".{folder.name}"
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(healthy, made, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = load_file(healthy / "model.safetensors")
    name = f"model.layers.{layer}.mlp.down_proj.weight"
    down = weights[name].copy()
    down[:, : down.shape[1] // 4] = 0
    save_file({**weights, name: down}, made / "model.safetensors", {"format": "pt"})
    made.rename(folder)
    return folder


def write_wrong_sampler(folder: Path) -> tuple[Path, dict[str, str]]:
    """A plugin of vLLM's in folder: the file that switches it on, and the environment that has vLLM load it."""
    flag = folder / "sampler-is-wrong"
    metadata = folder / "demo_wrong_sampler-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-wrong-sampler\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(
        "[vllm.general_plugins]\ndemo_wrong_sampler = demo_wrong_sampler:register\n"
    )
    (folder / "demo_wrong_sampler.py").write_text(_WRONG_SAMPLER.format(flag=str(flag)))
    return flag, {"PYTHONPATH": str(folder)}
