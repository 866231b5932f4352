"""A folder and options in; subjects, trials that survive an interruption, and progress on the screen, out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path

from rich.progress import Progress

from bench.faults.protocol import PROTOCOL, digest
from bench.faults.store import Sample, Store
from bench.faults.subject import Subject
from bench.faults.trial import Judge, Trial
from demo.model import cache_folder, prepare

Run = Callable[[], Sample]


def drawn(key: str) -> bytes:
    """Where a trial comes in an order that has nothing to do with faults: what is finished is a fair part of them."""
    return blake2b(key.encode()).digest()


def _folder() -> Path:
    # Of another protocol nothing is taken over.
    return cache_folder().parent / "bench-faults" / digest()[:16]


@dataclass(slots=True)
class Workplace:
    """What a part works with. scale: how many instances it takes, of those that the protocol's run takes.

    dtypes: those that are run; of others, what earlier runs found is taken. is_over: no trial is begun from then on.
    """

    progress: Progress
    scale: float
    dtypes: tuple[str, ...] = tuple(PROTOCOL["dtypes"])
    folder: Path = field(default_factory=_folder)
    is_over: Callable[[], bool] = lambda: False
    _subjects: dict[str, Subject] = field(default_factory=dict)
    _judges: dict[str, Judge] = field(default_factory=dict)

    @property
    def may_run(self) -> bool:
        """Whether another trial may be begun."""
        return bool(self.dtypes) and not self.is_over()

    def subject(self, dtype: str) -> Subject:
        """The real model in a dtype; loaded once."""
        if dtype not in self._subjects:
            say = self.progress.console.print
            self._subjects[dtype] = Subject(prepare(cache_folder(), say), dtype)
        return self._subjects[dtype]

    def judge(self, dtype: str) -> Judge | None:
        """What compares with the healthy model; None where its rounds are not complete."""
        rounds = [one.rounds[0] for one in self._baseline(dtype)]
        if dtype not in self._judges and len(rounds) == PROTOCOL["baseline_rounds"]:
            self._judges[dtype] = Judge(rounds, dtype)
        return self._judges.get(dtype)

    def trials(self, part: str, dtype: str, wanted: Sequence[tuple[str, Run]]) -> list[Trial]:
        """Every trial wanted, by key; of those that an earlier run made nothing is computed again."""
        # First what all are compared with: without it nothing can be said of any.
        judge = self.judge(dtype)
        samples = self.samples(part, dtype, wanted)
        return [] if judge is None else [judge.trial(sample) for sample in samples]

    def _baseline(self, dtype: str) -> list[Sample]:
        def one(draw: int) -> Sample:
            drawn = [self.subject(dtype).round(draw)]
            return Sample("healthy", str(draw), dtype, None, is_other=False, rounds=drawn)

        draws = range(PROTOCOL["baseline_rounds"])
        return self.samples("baseline", dtype, [(str(draw), partial(one, draw)) for draw in draws])

    def samples(self, part: str, dtype: str, wanted: Sequence[tuple[str, Run]]) -> list[Sample]:
        """Every sample wanted that is there; first those that are not are drawn, where the dtype is one to run."""
        store = Store(self.folder / f"{part}-{dtype}")
        missing = sorted((pair for pair in wanted if pair[0] not in store), key=lambda pair: drawn(pair[0]))
        if missing and dtype in self.dtypes:
            done = len(wanted) - len(missing)
            task = self.progress.add_task(f"{part}, {dtype}", total=len(wanted), completed=done)
            for key, run in missing:
                if self.is_over():
                    break
                store.put(key, run())
                self.progress.advance(task)
        return [store[key] for key, _ in wanted if key in store]
