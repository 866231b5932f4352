"""Our work on the model's thread in; where it waits for the device, and how long it takes there, out.

Only for measuring: methods are wrapped in the engine's process, before capture attaches.
"""

import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import introspan
from introspan.capture.runner import edge, ladder
from introspan.capture.step import recorder

_SYNCHRONISES = "called a synchronizing CUDA operation"
_OURS = str(Path(introspan.__file__).parent)
_IDLE = "settle"
"""The recorder's own: it waits there when the engine has nothing else to do."""

# Any: classes whose methods are replaced for the time of a measurement, which types do not foresee.
_EDGE: Any = edge.Edge
_LADDER: Any = ladder.Ladder
_RECORDER: Any = recorder.Recorder

_MOST = 20_000
"""Flushes that are timed."""


class Watch:
    """What was seen in this process since `install`.

    first: waits before anything has been flushed, which are those of the self-checks of the first step; idle: in
    `settle`; later: all others. Each by the line of ours that waited.
    """

    def __init__(self) -> None:
        self.first: Counter[str] = Counter()
        self.idle: Counter[str] = Counter()
        self.later: Counter[str] = Counter()
        self.steps = 0
        self.flush_seconds: list[float] = []
        self.ladders: list[ladder.Ladder] = []
        self._marks: list[tuple[Any, Any]] = []  # Any: torch's events, which are untyped
        self._is_inside = False
        self._has_flushed = False

    def install(self, *, waits: bool) -> None:
        """Looks at what is made from now on. waits: whether for waiting too, which makes everything slower."""
        self._keep_ladders()
        self._time_flushes()
        if waits:
            self._look_for_waits()

    # Any: JSON.
    def found(self) -> dict[str, Any]:
        """All of it. Waits for the device."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return {
            "first": dict(self.first),
            "idle": dict(self.idle),
            "later": dict(self.later),
            "steps": self.steps,
            "flush_seconds": self.flush_seconds,
            "device_seconds": [before.elapsed_time(after) / 1e3 for before, after in self._marks],
        }

    def forget(self) -> None:
        """Begins anew, but that the first flush is over."""
        for counts in (self.first, self.idle, self.later):
            counts.clear()
        self.steps = 0
        self.flush_seconds.clear()
        self._marks.clear()

    def note(self) -> None:
        """Something waits, in this very call."""
        stack = traceback.extract_stack()
        ours = [frame for frame in stack if frame.filename.startswith(_OURS)]
        if not ours:
            return
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        if any(frame.name == _IDLE for frame in ours):
            self.idle[where] += 1
        elif self._has_flushed:
            self.later[where] += 1
        else:
            self.first[where] += 1

    def _keep_ladders(self) -> None:
        make, ladders = _LADDER.__init__, self.ladders

        def init(made: ladder.Ladder, *args: Any, **kwargs: Any) -> None:
            make(made, *args, **kwargs)
            ladders.append(made)

        _LADDER.__init__ = init

    def _time_flushes(self) -> None:
        flush, begin_step = _RECORDER.flush, _RECORDER.begin_step

        def timed(one: recorder.Recorder) -> None:
            rows = one._waiting.count  # noqa: SLF001 - whether there is anything to do is not said otherwise
            if not rows or len(self.flush_seconds) >= _MOST:
                flush(one)
                return
            began = time.perf_counter()
            with self._marked():
                flush(one)
            self.flush_seconds.append(time.perf_counter() - began)
            self._has_flushed = True

        def counted(one: recorder.Recorder, *args: Any, **kwargs: Any) -> None:
            self.steps += 1
            begin_step(one, *args, **kwargs)

        _RECORDER.flush, _RECORDER.begin_step = timed, counted

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """Marks before and behind on the device; nobody waits for them until all is over."""
        if not torch.cuda.is_available():
            yield
            return
        event: Any = torch.cuda.Event
        before, after = (event(enable_timing=True) for _ in range(2))
        before.record()
        yield
        after.record()
        self._marks.append((before, after))

    def _look_for_waits(self) -> None:
        guarded = _EDGE._guarded  # noqa: SLF001 - every call of ours goes through it

        def watched(
            one: edge.Edge[Any], action: Callable[[], None], needed: Callable[[], bool] = lambda: True
        ) -> None:
            guarded(one, lambda: self.looking(action), needed)

        _EDGE._guarded = watched  # noqa: SLF001 - as above
        owners: tuple[Any, ...] = (torch.cuda.Event, torch.cuda.Stream, torch.cuda)
        for owner in owners:
            owner.synchronize = self._noting(owner.synchronize)

    def looking(self, action: Callable[[], None]) -> None:
        """Runs a piece of our work; torch warns of most ways to wait, the others are noted by name."""
        has_device = torch.cuda.is_available()
        was_inside, self._is_inside = self._is_inside, True
        before = torch.cuda.get_sync_debug_mode() if has_device else 0
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self._warned
            try:
                if has_device:
                    torch.cuda.set_sync_debug_mode("warn")
                action()
            finally:
                if has_device:
                    torch.cuda.set_sync_debug_mode(before)
                self._is_inside = was_inside

    def _warned(self, message: Warning | str, *_: Any, **__: Any) -> None:
        if _SYNCHRONISES in str(message):
            self.note()

    def _noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._is_inside:
                self.note()
            return original(*args, **kwargs)

        return call
