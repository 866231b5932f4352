"""Evidence in, alarms out: a clocked e-detector, whose expected number of false alarms by time t is at most t/T.

For a stream i with X in [0, 1] and E[X | past] ≤ m_i while all is well, and each c in CAUTIONS with λ = c/m_i:

    M ← (M + π_i·Δt/T) · (1 + λ(X̄ − m_i))        at every tick with evidence on the stream

and R_g = Σ over streams i of group g of the mean of M over c. An alarm is R_g ≥ 1; then M ← 0 in g. A group is a
(model, adapter): what one incident is about.

Why the bound holds.
- 1 + λ(X̄ − m) ≥ 1 − c > 0, as X̄ ≥ 0 and c < 1: M is never negative, whatever m > 0 is.
- X̄ is a mean with weights that the arrivals decide and the values do not, so E[X̄ | past, arrivals] ≤ m, and one step
  multiplies the expectation of M + π·Δt/T by at most 1. Streams may depend on one another in any way: only their
  expectations are added. They are *added*, not averaged: π is in M already, and a mean over streams would count
  it twice (still valid, but K times too strict).
- So N_t + Σ_g R_g − Σ_i ∫π_i dt/T never grows in expectation: in a step by the above; at an alarm N gains 1 and R_g
  loses at least 1; at a reset or a stream that goes, R only loses. With Σπ_i ≤ 1 at every moment, E[N_t] ≤ t/T for
  the alarms of all groups together. Alarms by group instead of one for the sum cost nothing in that account.
- π may change at any time for reasons other than the values to come (streams appear, disappear, are shared out anew):
  only the sum above uses it, and what M holds already is not touched. A new stream starts with M = 0.
- A tick without evidence on a stream leaves its M and keeps its π·Δt for the next evidence: the same
  sum of Δt. Were it added at once, silence alone would raise an alarm after T. What is kept is cut at LONGEST_SECONDS:
  cutting Δt makes the bound stricter, never looser. Jumps of the clock are cut alike, and backward is no time.
- m = 0: X > 0 cannot happen while all is well, so M becomes infinite. m ≥ 1: no X is evidence.

What it needs: X̄ of a tick must not be foreseeable from earlier ticks beyond m. An exact null (sampler.pit) has that by
construction. Live traffic compared with a frozen reference has it given that reference, so m must bound the mean for
the reference that was drawn (tolerance.py), for ranks as well; and as far as requests of one tick are no odder than
the reference given the ticks before: tenants who repeat one odd thing for many ticks break it.
tests/unit/test_false_alarms.py shows both sides. (Shin, Ramdas & Rinaldo, arXiv 2203.03532)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.sequential.alarm import Alarm, Carrier
from introspan_collector.detect.sequential.evidence import Stream

CAUTIONS = np.array([0.05, 0.15, 0.4, 0.7])
"""c: the larger, the faster a large shift is found and the later a small one."""

TICKET_SECONDS = 86_400.0
PAGE_SECONDS = 30 * 86_400.0
LONGEST_SECONDS = 600.0
"""At most this much time counts as passed between two pieces of evidence on a stream."""

SMALLEST_BOUND = 1e-9
"""Smaller bounds that are not 0 are taken for this: λ stays far from overflow."""

_WHAT = "the e-detector"
_VERSION = 1
_CARRIERS = 16
_CARRYING = 0.05


class EDetector:
    """Alarms with at most t / false_alarm_seconds false ones expected by time t, over all streams together."""

    def __init__(self, false_alarm_seconds: float) -> None:
        if not 0 < false_alarm_seconds < float("inf"):
            raise ValueError(f"false_alarm_seconds must be > 0 and finite, got {false_alarm_seconds}")
        self.false_alarm_seconds = false_alarm_seconds
        self._time: float | None = None
        self._take((), np.zeros(0), np.zeros(0), np.zeros((0, len(CAUTIONS))), np.zeros(0))

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that are followed; rows of evidence are in their order."""
        return self._streams

    def follow(
        self, streams: Sequence[Stream], bound: NDArray[np.float64], share: NDArray[np.float64]
    ) -> None:
        """From now on these streams, each once; those followed before keep their evidence, the others' is dropped.

        bound: m ≥ 0, float64 [S]; share: π ≥ 0, float64 [S], at most 1 together. Must not depend on evidence that is
        still to be given. Raises ValueError for others.
        """
        if not (len(streams) == len(bound) == len(share) == len(set(streams))):
            raise ValueError(
                f"streams must be distinct, with a bound and a share each, got {len(streams)} streams, "
                f"{len(set(streams))} distinct, {len(bound)} bounds, {len(share)} shares"
            )
        if not np.all(np.isfinite(bound) & (bound >= 0)):
            raise ValueError(
                f"bound must be finite and >= 0, got {bound[~(np.isfinite(bound) & (bound >= 0))][0]}"
            )
        if not (np.all(share >= 0) and share.sum() <= 1 + 1e-9):
            raise ValueError(f"share must be >= 0 and sum to at most 1, got a sum of {share.sum()}")
        rows = {stream: row for row, stream in enumerate(self._streams)}
        old = np.array([rows.get(stream, -1) for stream in streams], np.intp)
        log_m = np.full((len(streams), len(CAUTIONS)), -np.inf)
        due = np.zeros(len(streams))
        log_m[old >= 0] = self._log_m[old[old >= 0]]
        due[old >= 0] = self._due[old[old >= 0]]
        self._take(tuple(streams), bound, share, log_m, due)

    def update(
        self, x: NDArray[np.float64], now: float, growth: NDArray[np.float64] | None = None
    ) -> tuple[Alarm, ...]:
        """Alarms of one tick. x: mean evidence, float64 [S], NaN for none; now in seconds.

        growth: of ln M by single pieces of evidence, float64 [S, cautions], see `Bets`; NaN for none. Raises
        ValueError for x outside [0, 1] or of another length.
        """
        if x.shape != (len(self._streams),):
            raise ValueError(f"x must have {len(self._streams)} values, one a stream, got {x.shape}")
        rows = np.flatnonzero(~np.isnan(x))
        given = x[rows]
        if given.size and not (given.min() >= 0 and given.max() <= 1):
            worst = rows[np.argmax(np.abs(given - 0.5))]
            raise ValueError(f"x must be in [0, 1], got {x[worst]} for {self._streams[worst]}")
        self._advance(now)
        if not rows.size and growth is None:
            return ()
        bound = self._bound[rows]
        self._grow(rows, np.log1p(self._stake[rows] * (given - bound)[:, None]))
        self._log_m[rows[(bound == 0) & (given > 0)]] = np.inf
        if growth is not None:
            bet = np.flatnonzero(~np.isnan(growth[:, 0]) & (self._bound < 1))
            self._grow(bet, growth[bet])
        return self._alarms(now)

    def levels(self) -> dict[tuple[str, str], float]:
        """log₁₀ of evidence over threshold by (model, adapter); −inf before there is any, an alarm at 0."""
        return dict(
            zip(self._groups, (self._of_groups(self._of_streams()) / np.log(10)).tolist(), strict=True)
        )

    def evidence(self) -> NDArray[np.float64]:
        """The same of each stream alone, float64 [S]."""
        logs: NDArray[np.float64] = self._of_streams() / np.log(10)
        return logs

    def reset(self, model: str, adapter: str) -> None:
        """Drops the evidence about one model and adapter; what comes counts from here."""
        if (model, adapter) in self._groups:
            self._restart(self._groups.index((model, adapter)))

    def snapshot(self) -> bytes:
        """The whole state."""
        return checkpoint.dump(
            _WHAT,
            _VERSION,
            {"streams": self._streams, "time": self._time, "false_alarm_seconds": self.false_alarm_seconds},
            {"bound": self._bound, "share": self._share, "log_m": self._log_m, "due": self._due},
        )

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read.

        Evidence gathered for another mean time between false alarms is scaled to this one: M is linear in 1/T.
        """
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        log_m = arrays["log_m"]
        if header["false_alarm_seconds"] != self.false_alarm_seconds:
            log_m = log_m + np.log(header["false_alarm_seconds"] / self.false_alarm_seconds)
        self._time = header["time"]
        streams = tuple(Stream(*fields) for fields in header["streams"])
        self._take(streams, arrays["bound"], arrays["share"], log_m, arrays["due"])

    def _take(
        self,
        streams: tuple[Stream, ...],
        bound: NDArray[np.float64],
        share: NDArray[np.float64],
        log_m: NDArray[np.float64],
        due: NDArray[np.float64],
    ) -> None:
        self._streams = streams
        self._bound = np.where(bound > 0, np.maximum(bound, SMALLEST_BOUND), 0.0)
        self._share = share.copy()
        self._log_m = log_m
        self._due = due
        with np.errstate(divide="ignore"):
            stake = np.where(self._bound > 0, 1 / self._bound, 0.0)
        self._stake = stake[:, None] * CAUTIONS
        numbers: dict[tuple[str, str], int] = {}
        group = [numbers.setdefault((stream.model, stream.adapter), len(numbers)) for stream in streams]
        self._groups = tuple(numbers)
        self._order = np.argsort(np.array(group, np.intp), kind="stable")
        self._starts = np.searchsorted(np.array(group, np.intp)[self._order], np.arange(len(numbers)))

    def _advance(self, now: float) -> None:
        if not np.isfinite(now):
            raise ValueError(f"now must be finite seconds, got {now}")
        last = now if self._time is None else self._time
        if now > last:
            longest = self._share * LONGEST_SECONDS
            np.minimum(self._due + self._share * (now - last), longest, out=self._due)
        # A clock that went back by more than a jitter was ahead before: waiting for it to catch up could take years.
        self._time = now if now > last or now < last - LONGEST_SECONDS else last

    def _grow(self, rows: NDArray[np.intp], growth: NDArray[np.float64]) -> None:
        with np.errstate(divide="ignore"):
            log_seed = np.log(self._due[rows] / self.false_alarm_seconds)
        self._log_m[rows] = np.logaddexp(self._log_m[rows], log_seed[:, None]) + growth
        self._due[rows] = 0.0

    def _alarms(self, now: float) -> tuple[Alarm, ...]:
        of_streams = self._of_streams()
        of_groups = self._of_groups(of_streams)
        alarms = []
        for group in np.flatnonzero(of_groups >= 0).tolist():
            model, adapter = self._groups[group]
            carriers = self._carriers(self._rows(group), of_streams, of_groups[group])
            level = float(of_groups[group] / np.log(10))
            alarms.append(Alarm(model, adapter, now, level, self.false_alarm_seconds, carriers))
            self._restart(group)
        return tuple(alarms)

    def _carriers(
        self, rows: NDArray[np.intp], of_streams: NDArray[np.float64], total: float
    ) -> tuple[Carrier, ...]:
        logs = of_streams[rows]
        if np.isinf(total):  # beside the impossible, what is merely unlikely has no share
            certain = np.isposinf(logs)
            shares = certain / np.count_nonzero(certain)
        else:
            shares = np.exp(logs - total)
        largest = np.argsort(-shares, kind="stable")[:_CARRIERS]
        # Every stream has some share: those far below the largest are noise, and would mislead whoever reads them.
        carrying = [i for i in largest.tolist() if shares[i] >= _CARRYING * shares[largest[0]]]
        return tuple(Carrier(self._streams[rows[i]], float(shares[i])) for i in carrying)

    def _restart(self, group: int) -> None:
        rows = self._rows(group)
        self._log_m[rows] = -np.inf
        self._due[rows] = 0.0

    def _rows(self, group: int) -> NDArray[np.intp]:
        end = self._starts[group + 1] if group + 1 < len(self._starts) else len(self._order)
        return self._order[self._starts[group] : end]

    def _of_streams(self) -> NDArray[np.float64]:
        summed: NDArray[np.float64] = np.logaddexp.reduce(self._log_m, axis=1)
        summed -= np.log(len(CAUTIONS))
        return summed

    def _of_groups(self, of_streams: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(self._starts):
            return np.zeros(0)
        summed: NDArray[np.float64] = np.logaddexp.reduceat(of_streams[self._order], self._starts)
        return summed
