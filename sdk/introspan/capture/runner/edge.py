"""What capture does inside a host in; the same, kept from ever raising into it, out."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from introspan.capture.health import Health
from introspan.capture.output.sampler import Sampling, requested
from introspan.capture.step.recorder import Recorder
from introspan.capture.turn import Turn
from introspan.observation import Request

RecorderT = TypeVar("RecorderT", bound=Recorder)


class Edge(Generic[RecorderT]):
    """What the adapters of all runners have in common: errors are counted, and cost what was at hand."""

    def __init__(
        self, recorder: RecorderT, health: Health, identify: Callable[[Any], Request | None]
    ) -> None:
        self._recorder = recorder
        self._health = health
        self._identify = identify
        self._turn = Turn(health)
        self._stopped = False

    def _guarded(self, action: Callable[[], None], needed: Callable[[], bool] = lambda: True) -> None:
        """Nothing of ours may raise into the host: an error drops the rows at hand and is counted."""
        try:
            if not self._health.is_on("capture"):
                self._stop()
            elif needed():
                with self._turn:
                    action()
        except Exception as error:  # noqa: BLE001 - the edge of the host
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._health.error("capture", error)
        self._recorder.discard()

    def _stop(self) -> None:
        """Leaves the taps alone once capture was switched off, possibly in the middle of a step."""
        if not self._stopped:
            self._stopped = True
            self._recorder.discard()

    def _finish(self, key: str) -> None:
        """Ends a request; an error is counted here, so that those after it end and begin all the same."""
        try:
            self._recorder.finish(key)
        except Exception as error:  # noqa: BLE001 - as in _guarded, of one request
            self._failed(error)

    # Any: vLLM's NewRequestData.
    def _begin(self, new: Any) -> None:
        """Follows a new request; what is odd about one costs no other its measurement."""
        try:
            request = self._identify(new)
            sampling = requested(new.sampling_params) if request is not None else None
        except Exception as error:  # noqa: BLE001 - the request's own: nothing of others is touched yet
            self._health.odd_request(error)
            return
        if request is None or sampling is None:
            return
        try:
            self._follow(request, sampling, new)
        except Exception as error:  # noqa: BLE001 - as in _guarded, of one request
            self._failed(error)

    # Any: as above.
    def _follow(self, request: Request, sampling: Sampling, new: Any) -> None:  # noqa: ARG002 - for those who ask more of it
        self._recorder.begin(request, sampling)
