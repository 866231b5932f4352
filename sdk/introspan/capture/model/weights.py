"""Reloads and updates of a served model's weights in, its new fingerprint out.

Four ways lead to new weights in vLLM 0.32.0: `reload_weights` of the runner; `start_weight_update`, `update_weights`
and `finish_weight_update` of the worker; a sleep of level 2 or a `discard`, which lets the weights go, until `wake_up`
makes room for others. A sleep of level 1 gives the same weights back, and changes nothing here. Trainers that bring an
extension of the worker call the model's `load_weights` themselves, as often as they please, and tell nobody when they
are done: the next new request is then of a model without a name that anything else could have.

Requests in flight when weights change are followed no further, since the keys they read are of the old ones; and no
new one until the change is complete, since no fingerprint would be true of it.
"""

import logging
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch

from introspan.capture.health import Health
from introspan.observation import Disabled, Request
from introspan.patches import Patches

_log = logging.getLogger("introspan")


class Source(Enum):
    """Where weights came from, which says how to name them."""

    FILES = "files"
    MEMORY = "memory"
    UNANNOUNCED = "unannounced"
    """Nobody said that they are complete, and between two steps there is no time to look."""


class Weights:
    """Follows the weights of one worker's model.

    leave is called before they change and arrive after, both on the model's thread and between two steps; after an
    unannounced change arrive must be quick.
    """

    def __init__(self, health: Health, leave: Callable[[], None], arrive: Callable[[Source], None]) -> None:
        self._health = health
        self._leave = leave
        self._arrive = arrive
        self._settled = True
        self._is_announced = True
        self._patches = Patches()

    # Any throughout: vLLM's worker and runner, and what their methods take.
    def follow(self, worker: Any, runner: Any) -> None:
        """Wraps the methods by which weights change, as far as worker and runner have them."""
        around = {
            "load_weights": (runner.get_model(), self._loading),
            "reload_weights": (runner, self._reloading),
            "start_weight_update": (worker, self._before),
            "update_weights": (worker, self._before),
            "finish_weight_update": (worker, self._finishing),
            "wake_up": (worker, self._waking),
            "sleep": (worker, self._sleeping),
            "discard": (worker, self._discarding),
        }
        for name, (owner, wrapper) in around.items():
            if hasattr(owner, name):
                self._patches.replace(owner, name, wrapper)

    def measured(self, identify: Callable[[Any], Request | None]) -> Callable[[Any], Request | None]:
        """What says who a new request is, while weights are settled; None where they are not, and counted."""

        def settled(new: Any) -> Request | None:
            request = identify(new)
            if request is not None and not self._is_announced:
                self._settle(Source.UNANNOUNCED)
            if request is not None and not self._settled:
                self._health.dropped_requests["weights_changing"] += 1
                return None
            return request

        return settled

    def _loading(self, original: Any) -> Any:
        def load_weights(*args: Any, **kwargs: Any) -> Any:
            if self._settled:
                self._change()
                self._is_announced = False
            return original(*args, **kwargs)

        return load_weights

    def _reloading(self, original: Any) -> Any:
        def reload_weights(*args: Any, **kwargs: Any) -> Any:
            self._change()
            result = original(*args, **kwargs)
            given = args[0] if args else kwargs.get("weights_iterator")
            self._settle(Source.FILES if given is None else Source.MEMORY)
            return result

        return reload_weights

    def _before(self, original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._change()
            return original(*args, **kwargs)

        return call

    def _finishing(self, original: Any) -> Any:
        def finish_weight_update(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self._settle(Source.MEMORY)
            return result

        return finish_weight_update

    def _waking(self, original: Any) -> Any:
        def wake_up(tags: Any = None, *args: Any, **kwargs: Any) -> Any:
            result = original(tags, *args, **kwargs)
            if not self._settled and (tags is None or "weights" in tags):
                self._settle(Source.MEMORY)
            return result

        return wake_up

    def _sleeping(self, original: Any) -> Any:
        def sleep(level: int = 1, *args: Any, **kwargs: Any) -> Any:
            if level >= 2:
                self._change()
            return original(level, *args, **kwargs)

        return sleep

    def _discarding(self, original: Any) -> Any:
        def discard(tags: Any, *args: Any, **kwargs: Any) -> Any:
            if "weights" in tags:
                self._change()
            return original(tags, *args, **kwargs)

        return discard

    def _change(self) -> None:
        self._is_announced = True
        if self._settled:
            self._settled = False
            self._guarded(self._leave)

    def _settle(self, source: Source) -> None:
        if self._guarded(lambda: self._arrive(source)):
            self._settled = self._is_announced = True

    def _guarded(self, action: Callable[[], None]) -> bool:
        """Whether an action of ours succeeded; where not, capture ends rather than name a wrong model."""
        try:
            # Rows that wait were made in this mode, and may only be written to in it.
            with torch.inference_mode():
                action()
        except Exception as error:  # noqa: BLE001 - the edge of the host
            _log.warning("introspan: a change of weights was not followed", exc_info=True)
            detail = f"{type(error).__name__}: {error}"
            self._health.refuse(Disabled("capture", "weights_unknown", detail))
            return False
        return True
