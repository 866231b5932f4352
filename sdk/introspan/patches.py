"""Methods of the host in, the same with ours around them out, and back again."""

import functools
from collections.abc import Callable
from typing import Any


class Patches:
    """Methods that were replaced, for as long as nobody asks for them back."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []
        self._in_force = True

    # Any throughout: classes, objects and methods of the host.
    def replace(self, owner: Any, name: str, around: Callable[[Any], Callable[..., Any]]) -> None:
        """Replaces a method by what `around` makes of it; a method it inherits is replaced on the owner alone."""
        before = vars(owner).get(name)
        original = getattr(owner, name)
        ours = around(original)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            return (ours if self._in_force else original)(*args, **kwargs)

        setattr(owner, name, call)
        self._done.append((owner, name, before, call))

    def undo(self) -> None:
        """Puts every method back; one that somebody has wrapped since stays below, and does nothing of its own."""
        self._in_force = False
        while self._done:
            owner, name, before, call = self._done.pop()
            if vars(owner).get(name) is not call:
                continue
            if before is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
