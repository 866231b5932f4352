"""A folder and options in; subjects, trials that survive an interruption, and progress on the screen, out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rich.progress import Progress

from bench.faults.protocol import digest
from bench.faults.store import Store
from bench.faults.subject import Subject
from bench.faults.trial import Trial, record, trial
from demo.model import cache_folder, prepare

Run = Callable[[], Trial]


@dataclass(slots=True)
class Workplace:
    """What a part works with. scale: how many instances it takes, of those that the protocol's run takes."""

    progress: Progress
    scale: float
    folder: Path = field(default_factory=lambda: cache_folder().parent / "bench-faults" / digest()[:16])

    def subject(self, dtype: str) -> Subject:
        """The real model in a dtype, with its baseline; loaded once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return _subject(dtype, self.folder, self.progress.console.print)

    def trials(self, part: str, wanted: Iterable[tuple[str, Run]]) -> list[Trial]:
        """Every trial wanted, by key; those that an earlier run made are not made again."""
        store = Store(self.folder / f"{part}.jsonl")
        runs = list(wanted)
        found = []
        for key, run in self.progress.track(runs, description=part):
            if key not in store:
                store.put(key, record(run()))
            found.append(trial(store[key]))
        return found

    def finished(self, part: str, keys: Iterable[str]) -> list[Trial]:
        """Those trials that earlier runs made."""
        store = Store(self.folder / f"{part}.jsonl")
        return [trial(store[key]) for key in keys if key in store]


@cache
def _subject(dtype: str, folder: Path, say: Callable[[str], None]) -> Subject:
    return Subject(prepare(cache_folder(), say), dtype, folder, say)
