"""Taps that did not fire in, from the recorder; which steps run how, so that they do, out.

Four rungs, from the best to nothing. IN_GRAPH: taps are recorded in all graphs, and every step is measured. PIECEWISE:
a measured step replays piecewise graphs where it would have replayed a full one; attention is then called by Python
between them. EAGER: a measured step replays no graph. Below is nothing: the recorder refuses the signal.

On the lower rungs steps are measured in bursts, so that most run as if nothing of ours were there, and nothing is
measured in those. How an engine is asked is `graph_modes.py`'s; nothing here knows one.
"""

import logging
from collections.abc import Callable
from enum import IntEnum

from introspan.capture.health import Health
from introspan.capture.rows import BURST
from introspan.observation import Disabled

_log = logging.getLogger("introspan")


class Rung(IntEnum):
    """How a step that is measured runs."""

    IN_GRAPH = 0
    PIECEWISE = 1
    EAGER = 2


# Both keep what measuring costs below half a percent of the engine's time, if a step of one token in piecewise graphs
# takes up to 1.5 times as long as in a full one, and up to 4 times without graphs. That is to be measured on a GPU yet.
EVERY = {Rung.PIECEWISE: 300, Rung.EAGER: 1_800}
"""BURST steps of so many are measured on the lower rungs, all those of one burst together."""

_BETWEEN = 1
"""Steps between a fall and the first burst: in them the recorder computes what waits from before."""

_LOST = {Rung.PIECEWISE: "capture.full_graphs", Rung.EAGER: "capture.graphs"}
_INSTEAD = {Rung.PIECEWISE: "in piecewise graphs", Rung.EAGER: "without graphs"}


class Ladder:
    """Where one engine is on the ladder. It only goes down, and each rung is announced once.

    refusal: why the engine does not offer a rung, None where it does; asked when it is needed first, since engines
    record their graphs after they have loaded the model. signals: those that have taps. is_wanted: whether anything
    would be measured in a step; bursts wait for it.

    The recorder asks `measures_now` once a step before it chooses rows. Where that is False it measures nothing, and
    computes what waits, so that rows of a burst wait with no others. When it learns that a signal's taps were silent it
    calls `fall` with what `steps` was when those rows were computed, or chosen. While that returns True, what was
    measured of the signal in those rows is dropped and it goes on; else the recorder refuses the signal.
    """

    def __init__(
        self,
        refusal: Callable[[Rung], str | None],
        health: Health,
        signals: tuple[str, ...],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._refusal = refusal
        self._health = health
        self._signals = signals
        self._is_wanted = is_wanted
        self._steps = 0
        self._fell_at = -_BETWEEN - 1
        self._next_burst = 0
        self._left = 0
        self._measures = True
        self._is_at_the_end = False
        self.rung = Rung.IN_GRAPH

    @property
    def steps(self) -> int:
        """The number of the step at hand."""
        return self._steps

    def begin_step(self) -> Rung:
        """A step begins; how it has to run. To be called before the engine decides that itself."""
        self._steps += 1
        self._measures = True
        # Without a signal that has taps no step has to run otherwise, and what needs none is measured in all.
        if self.rung is Rung.IN_GRAPH or not any(map(self._health.is_on, self._signals)):
            return Rung.IN_GRAPH
        if not self._left and self._steps >= self._next_burst and self._is_wanted():
            self._left, self._next_burst = BURST, self._steps + EVERY[self.rung]
        self._measures = self._left > 0
        self._left -= self._measures
        return self.rung if self._measures else Rung.IN_GRAPH

    def measures_now(self) -> bool:
        """Whether rows of the step at hand may be measured."""
        return self._measures

    def fall(self, signal: str, detail: str, since: int) -> bool:
        """A signal's taps were silent; whether it can be measured all the same from now on.

        since: `steps` as it was when the rows that were lost were computed, or chosen. What is learnt of rows from
        before the last fall is no reason for another.
        """
        if not self._health.is_on(signal):
            return False
        if since <= self._fell_at + _BETWEEN:
            return True
        why: list[str] = []
        for rung in [rung for rung in Rung if rung > self.rung]:
            refused = self._refusal(rung)
            if refused is None:
                self._take(rung, f"{signal}: {detail}")
                return True
            why.append(refused)
        if not self._is_at_the_end:
            self._is_at_the_end = True
            reasons = "; ".join(dict.fromkeys(why)) or "it was silent without graphs too"
            _log.warning("introspan: there is no other way to measure %s: %s", signal, reasons)
        return False

    def _take(self, rung: Rung, detail: str) -> None:
        self.rung, self._fell_at = rung, self._steps
        self._left, self._next_burst = 0, self._steps + _BETWEEN + 1
        instead = f"from now on {BURST} of {EVERY[rung]} steps are measured, and run {_INSTEAD[rung]}"
        self._health.refuse(Disabled(_LOST[rung], "tap_silent", f"{detail}; {instead}"))
