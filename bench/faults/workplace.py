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
from bench.faults.trial import CONTROL, Judge, Trial
from demo.model import cache_folder, prepare

Run = Callable[[], Sample]

_FIRST_DRAW = {"baseline": 0, "healthy": 1000}


def _folder() -> Path:
    # Of another protocol nothing is taken over.
    return cache_folder().parent / "bench-faults" / digest()[:16]


@dataclass(slots=True)
class Workplace:
    """What a part works with. scale: how many instances it takes, of those that the protocol's run takes.

    dtypes: those that are run; of others, what earlier runs found is taken.
    """

    progress: Progress
    scale: float
    dtypes: tuple[str, ...] = tuple(PROTOCOL["dtypes"])
    folder: Path = field(default_factory=_folder)
    _subjects: dict[str, Subject] = field(default_factory=dict)
    _judges: dict[str, Judge] = field(default_factory=dict)

    def subject(self, dtype: str) -> Subject:
        """The real model in a dtype; loaded once."""
        if dtype not in self._subjects:
            say = self.progress.console.print
            self._subjects[dtype] = Subject(prepare(cache_folder(), say), dtype)
        return self._subjects[dtype]

    def judge(self, dtype: str) -> Judge | None:
        """What compares with the healthy model; None where its rounds are not complete."""
        rounds = [one.rounds[0] for one in self._healthy(dtype, "baseline")]
        if dtype not in self._judges and len(rounds) == PROTOCOL["baseline_rounds"]:
            self._judges[dtype] = Judge(rounds, dtype)
        return self._judges.get(dtype)

    def trials(self, part: str, dtype: str, wanted: Sequence[tuple[str, Run]]) -> list[Trial]:
        """Every trial wanted, by key; of those that an earlier run made nothing is computed again."""
        samples = self.samples(part, dtype, wanted)
        judge = self.judge(dtype)
        return [] if judge is None else [judge.trial(sample) for sample in samples]

    def healthy(self, dtype: str) -> list[Trial]:
        """Trials, of a round each, of the healthy model in batches that the baseline has not seen."""
        samples = self._healthy(dtype, "healthy")
        judge = self.judge(dtype)
        return [] if judge is None else [judge.trial(sample) for sample in samples]

    def controls(self, dtype: str) -> list[Trial]:
        """The healthy model in the batches that changed ones are asked in: what is told here is told of batches."""

        def one(trial: int) -> Sample:
            drawn = self.subject(dtype).unchanged(trial, PROTOCOL["rounds_of_a_trial"])
            return Sample(CONTROL, str(trial), dtype, None, is_other=False, rounds=drawn)

        trials = range(PROTOCOL["compositions_of_changed_rounds"])
        samples = self.samples("control", dtype, [(str(trial), partial(one, trial)) for trial in trials])
        judge = self.judge(dtype)
        return [] if judge is None else [judge.trial(sample) for sample in samples]

    def _healthy(self, dtype: str, kind: str) -> list[Sample]:
        def one(draw: int) -> Sample:
            subject = self.subject(dtype)
            return Sample(
                "healthy", str(draw), dtype, None, is_other=False, rounds=[subject.healthy_round(draw)]
            )

        first = _FIRST_DRAW[kind]
        draws = range(first, first + PROTOCOL[f"{kind}_rounds"])
        return self.samples(kind, dtype, [(str(draw), partial(one, draw)) for draw in draws])

    def samples(self, part: str, dtype: str, wanted: Sequence[tuple[str, Run]]) -> list[Sample]:
        """Every sample wanted that is there; first those that are not are drawn, where the dtype is one to run."""
        store = Store(self.folder / f"{part}-{dtype}")
        # In an order that has nothing to do with the faults: what is finished at any time is a fair part of them.
        missing = sorted(
            (pair for pair in wanted if pair[0] not in store),
            key=lambda pair: blake2b(pair[0].encode()).digest(),
        )
        if missing and dtype in self.dtypes:
            done = len(wanted) - len(missing)
            task = self.progress.add_task(f"{part}, {dtype}", total=len(wanted), completed=done)
            for key, run in missing:
                store.put(key, run())
                self.progress.advance(task)
        return [store[key] for key, _ in wanted if key in store]
