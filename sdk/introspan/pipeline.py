"""capture → digest → export: the only file of the SDK that knows the order of the stages."""

import time
from collections.abc import Callable
from dataclasses import replace

from introspan.admission import Admission
from introspan.config import Settings
from introspan.digest.segments import SINGLE, Segments
from introspan.export.exporter import Exporter
from introspan.observation import CaptureStatus, Observation, Request, Resource, RowColumn, Rows
from introspan_wire.signals import SEGMENT_TOKENS


class Pipeline:
    """Takes what capture measures in one worker and sends it. rows and finished are called on the model's thread.

    capacity bounds the requests followed at once; status is asked for every message; switch_off is called when
    the collector says so.
    """

    def __init__(
        self,
        settings: Settings,
        resource: Resource,
        columns: tuple[RowColumn, ...],
        capacity: int,
        admission: Admission,
        status: Callable[[], CaptureStatus],
        switch_off: Callable[[], None],
        wall_clock: Callable[[], int] = time.time_ns,
        exporter: Callable[..., Exporter] = Exporter,
    ) -> None:
        self._segments = Segments(columns, capacity, SINGLE if settings.single_tokens else SEGMENT_TOKENS)
        self._admission = admission
        self._switch_off = switch_off
        self._wall_clock = wall_clock
        self._fingerprint = resource.model_fingerprint
        self._exporter = exporter(settings, resource, status, self._obey)
        # The collector learns of this worker, and of what it cannot measure, before the first request.
        self._exporter.start()

    def rows(self, rows: Rows) -> None:
        """Reduces and sends the rows of a few steps; at once where something begins that somebody should know."""
        self._send(self._segments.add(rows, self._wall_clock()))
        if rows.closes.any():
            # Once a request, of which the row budget lets a few a second pass: it costs next to nothing.
            self._exporter.hurry()

    def canaries(self, observations: list[Observation]) -> None:
        """Sends what comes of canaries and of requests sent again: few, and no business of the row budget."""
        for observation in observations:
            self._exporter.offer(replace(observation, model_fingerprint=self._fingerprint))

    def finished(self, request: Request, last_position: int) -> None:
        """Sends what a request's last segment holds."""
        self._admission.ended(request, last_position)
        self._send(self._segments.finish(request, last_position, self._wall_clock()))

    def model_changed(self, fingerprint: str) -> None:
        """What comes after is of other weights; every request measured on the former ones must have finished."""
        self._fingerprint = fingerprint
        self._exporter.model_changed(fingerprint)

    def close(self) -> None:
        """Sends what open segments hold and what waits, within two seconds."""
        self._send(self._segments.close(self._wall_clock()))
        self._exporter.close()

    def _send(self, observations: list[Observation]) -> None:
        self._admission.emitted(len(observations))
        for observation in observations:
            # An observation that waits longer than its weights live keeps their name.
            self._exporter.offer(replace(observation, model_fingerprint=self._fingerprint))

    def _obey(self, most: float | None, off: bool) -> None:  # noqa: FBT001 - the exporter's callback
        if most is not None:
            self._admission.brake(most)
        if off:
            self._switch_off()
