"""Rounds of answers in, the same after an interruption out: a file for each model that was asked.

Answers are kept and not what was made of them, so that they can be compared again with nothing computed anew.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.faults.answers import Round
from introspan_collector.detect.canary.record import Arrays, dump_rounds, load_rounds

_DESCRIPTION = "description"
# What answers that were kept earlier do not say: nobody was asked, rounds were computed.
_LATER = {"asked": "", "signed": False}


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rounds of one model. layer: the only one changed, None for none or all; is_other: whether any weight differs."""

    family: str
    name: str
    dtype: str
    layer: int | None
    is_other: bool
    rounds: Sequence[Round]


class Store:
    """A folder of samples by key. One that an interruption cut short is not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, key: str) -> bool:
        return self._path(key).exists()

    def __getitem__(self, key: str) -> Sample:
        with np.load(self._path(key)) as stored:
            arrays = dict(stored)
        found = json.loads(str(arrays.pop(_DESCRIPTION)))
        header = [[_LATER | answer for answer in one] for one in found.pop("rounds")]
        rounds = [dict(one) for one in load_rounds(header, "", arrays)]
        return Sample(**found, rounds=rounds)

    def put(self, key: str, sample: Sample) -> None:
        """Keeps a sample from now on, in place of an earlier one."""
        arrays: Arrays = {}
        kept = ("family", "name", "dtype", "layer", "is_other")
        found = {name: getattr(sample, name) for name in kept} | {
            "rounds": dump_rounds(sample.rounds, "", arrays)
        }
        arrays[_DESCRIPTION] = np.array(json.dumps(found))
        partial = self._path(key).with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.rename(self._path(key))

    def _path(self, key: str) -> Path:
        name = re.sub(r"[^\w.+-]+", "_", key)
        return self._folder / f"{name}.npz"
