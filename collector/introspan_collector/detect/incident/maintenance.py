"""Announced deploys in, whether a model is being worked on out."""

import hashlib
from dataclasses import dataclass

LONGEST_SECONDS = 86_400.0
MOST_WINDOWS = 64


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which incidents of a model are recorded and nobody is told; model "" stands for every model."""

    model: str
    start_unix_seconds: float
    end_unix_seconds: float
    reason: str

    def __post_init__(self) -> None:
        length = self.end_unix_seconds - self.start_unix_seconds
        if not 0 < length <= LONGEST_SECONDS:
            raise ValueError(
                f"a window must last > 0 and <= {LONGEST_SECONDS:g} seconds, got {length:g}:"
                " announce a longer deploy in parts"
            )
        if not self.reason.strip():
            raise ValueError(f"reason must say what is deployed, got {self.reason!r}: give a sentence")

    @property
    def id(self) -> str:
        """16 hexadecimal digits, the same for the same announcement."""
        text = "\0".join(
            (self.model, repr(self.start_unix_seconds), repr(self.end_unix_seconds), self.reason)
        )
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def covers(self, model: str, now_unix_seconds: float) -> bool:
        """Whether the model is being worked on at that time."""
        inside = self.start_unix_seconds <= now_unix_seconds < self.end_unix_seconds
        return inside and self.model in ("", model)


def announced(windows: tuple[Window, ...], window: Window, now_unix_seconds: float) -> tuple[Window, ...]:
    """The windows that are not over, with one more. Raises ValueError where there are too many."""
    kept = {one.id: one for one in windows if one.end_unix_seconds > now_unix_seconds}
    kept[window.id] = window
    if len(kept) > MOST_WINDOWS:
        raise ValueError(
            f"{len(kept)} windows are announced, more than {MOST_WINDOWS}: withdraw one that is no longer needed"
        )
    return tuple(kept.values())


def reason_at(windows: tuple[Window, ...], model: str, now_unix_seconds: float) -> str:
    """Why the model is being worked on, "" if it is not."""
    return next((one.reason for one in windows if one.covers(model, now_unix_seconds)), "")
