"""The last rounds of a model's canary in, how it stands out."""

from collections.abc import Sequence
from enum import StrEnum

from introspan_collector.detect.canary.round import Round

SILENT_SECONDS = 3600.0
"""A replica that has not answered for so long says nothing of the model any more."""


class Standing(StrEnum):
    """What a model's canary says: none was ever asked, it makes a baseline, is still, deviates, or answers no more."""

    NONE = "none"
    GATHERING = "gathering"
    STILL = "still"
    DEVIATING = "deviating"
    SILENT = "silent"


def recent(rounds: Sequence[Round], now_unix_seconds: float) -> list[Round]:
    """Those that say something of the model as it is."""
    return [one for one in rounds if _age(one, now_unix_seconds) < SILENT_SECONDS]


def standing(rounds: Sequence[Round], now_unix_seconds: float, *, has_baseline: bool) -> Standing:
    """How a canary stands. rounds: the last of each replica."""
    heard = recent(rounds, now_unix_seconds)
    compared = [one.comparison for one in heard if one.comparison is not None]
    if not heard:
        return Standing.SILENT if rounds or has_baseline else Standing.NONE
    if not compared:
        return Standing.GATHERING
    deviates = any(one.deviates and not one.equivalent for one in compared)
    return Standing.DEVIATING if deviates else Standing.STILL


def silence(rounds: Sequence[Round], now_unix_seconds: float) -> str:
    """That nobody answers any more, in words; "" while somebody does, and where nobody was ever asked."""
    if not rounds or recent(rounds, now_unix_seconds):
        return ""
    hours = min(_age(one, now_unix_seconds) for one in rounds) / 3600
    return f"no canary has answered for {hours:.1f} hours"


def _age(one: Round, now_unix_seconds: float) -> float:
    return now_unix_seconds - one.time_unix_nano / 1e9
