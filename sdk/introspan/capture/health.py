"""Errors and failed self-checks of the probes in; what is switched off, and the counters of capture, out."""

import logging
from collections import Counter
from dataclasses import dataclass, field

from introspan.observation import CaptureStatus, Disabled, Drawn

_log = logging.getLogger("introspan")

ERRORS_BEFORE_OFF = 3
"""A probe that has raised this often is switched off."""


@dataclass(slots=True)
class Health:
    """State of the probes: "residual", "attention", "output", "sampler", "canary", "consistency"; "capture" is all."""

    disabled: dict[str, Disabled] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    dropped_requests: Counter[str] = field(default_factory=Counter)
    """Requests that are not measured, or not compared, by reason."""
    dropped_rows: Counter[str] = field(default_factory=Counter)
    """Rows that were chosen or measured and enter no segment, by reason."""
    measured_steps: int = 0
    measured_rows: int = 0
    capture_ns: int = 0
    sampler_rows_skipped: int = 0
    attention_rows_skipped: int = 0
    drawn: Drawn = field(default_factory=Drawn)

    def is_on(self, probe: str) -> bool:
        """Whether a probe is to measure."""
        return probe not in self.disabled and "capture" not in self.disabled

    def refuse(self, entry: Disabled) -> None:
        """Switches a signal off; says so once."""
        if entry.signal not in self.disabled:
            self.disabled[entry.signal] = entry
            _log.warning("introspan: %s is not captured (%s): %s", entry.signal, entry.reason, entry.detail)

    def error(self, probe: str, error: BaseException) -> None:
        """Counts an error of a probe, logs the first one, and switches the probe off after the third."""
        self.errors[probe] += 1
        if self.errors[probe] == 1:
            _log.warning(
                "introspan: probe %s raised, the served model is not affected", probe, exc_info=error
            )
        if self.errors[probe] >= ERRORS_BEFORE_OFF:
            detail = f"raised {self.errors[probe]} times, last {type(error).__name__}: {error}"
            self.refuse(Disabled(probe, "probe_error", detail))

    def odd_request(self, error: BaseException) -> None:
        """Counts a request that is not measured because looking at it raised; the first one is logged.

        Nothing is switched off: what a client sends must not end the measurement of others.
        """
        self.errors["request"] += 1
        self.dropped_requests["request_error"] += 1
        if self.errors["request"] == 1:
            _log.warning("introspan: a request cannot be looked at and is not measured", exc_info=error)

    def status(self, sampling_probability: float) -> CaptureStatus:
        """The counters as they are now."""
        return CaptureStatus(
            measured_steps=self.measured_steps,
            measured_rows=self.measured_rows,
            capture_seconds=self.capture_ns / 1e9,
            disabled=tuple(self.disabled.values()),
            probe_errors=self.errors.total(),
            sampler_rows_skipped=self.sampler_rows_skipped,
            attention_rows_skipped=self.attention_rows_skipped,
            sampling_probability=sampling_probability,
            dropped_requests=dict(self.dropped_requests),
            dropped_rows=dict(self.dropped_rows),
            drawn=self.drawn,
        )
