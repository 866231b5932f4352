"""What has moved in, what is probably the matter out, with the reasons in words. An annotation, never a label."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from introspan_collector.detect.sequential.evidence import BEYOND_ALL, OUTSIDE, Stream


class Verdict(StrEnum):
    """Where to look first."""

    SAMPLER = "sampler"
    MODEL = "model or engine"
    TRAFFIC = "traffic"
    PENDING = "pending"
    UNDETERMINED = "undetermined"


class Moved(StrEnum):
    """What an alarm can be about, as far as it matters for where to look."""

    SAMPLER = "sampler"
    PROMPT = "prompt rows within their classes"
    DECODED = "decoded rows within their classes"
    CLASSES = "class frequencies"
    OUTSIDE = "requests outside all classes"
    BEYOND = "prompts unlike every healthy one"
    REPLICA = "one replica against the others"
    CANARY = "canary"
    NONFINITE = "values that are not finite"
    CONSISTENCY = "the same request computed twice"


class Canary(StrEnum):
    """What the canary says: unknown if it can be asked, silent if there is none or it did not answer in time."""

    MOVED = "moved"
    STILL = "still"
    UNKNOWN = "unknown"
    ASKED = "asked"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known when somebody asks what is the matter.

    place: the part of the model where what the canary saw begins, "" where none can be named. replicas: those
    singled out.
    """

    moved: frozenset[Moved]
    canary: Canary
    place: str = ""
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Triage:
    """A verdict, its reasons in sentences, and whether the canary should be asked at once to make sure."""

    verdict: Verdict
    reasons: tuple[str, ...]
    ask_canary: bool = False


_BY_DETECTOR = {
    "sampler": Moved.SAMPLER,
    "canary": Moved.CANARY,
    "consistency": Moved.CONSISTENCY,
    "reprefill": Moved.CONSISTENCY,
    "nonfinite": Moved.NONFINITE,
    "replicas": Moved.REPLICA,
}
_DRAWN = frozenset({"output.logprob", "sampler.pit", "sampler.greedy_mismatch"})
"""Signals that a prompt's row has of the first token drawn: they say as little about the prompt as decoded rows."""


def moved_in(streams: Iterable[Stream]) -> frozenset[Moved]:
    """What these streams of evidence are about."""
    return frozenset(_moved(stream) for stream in streams)


def _moved(stream: Stream) -> Moved:
    if stream.side == "outside" or stream.signal == OUTSIDE:
        return Moved.OUTSIDE
    if stream.detector == "extremes" and stream.side == BEYOND_ALL and stream.kind == "prompt":
        return Moved.BEYOND
    if stream.detector == "classes":
        return Moved.CLASSES
    is_prompt = stream.kind == "prompt" and stream.signal not in _DRAWN
    by_kind = Moved.PROMPT if is_prompt else Moved.DECODED
    return _BY_DETECTOR.get(stream.detector, by_kind)


_Decided = tuple[Verdict, tuple[str, ...]]
_BY_CANARY = {
    Canary.STILL: Verdict.TRAFFIC,
    Canary.UNKNOWN: Verdict.PENDING,
    Canary.ASKED: Verdict.PENDING,
    Canary.SILENT: Verdict.UNDETERMINED,
}
_CANARY_WORDS = {
    Canary.STILL: "the canary, asked since, is still",
    Canary.UNKNOWN: "the canary is being asked",
    Canary.ASKED: "the canary is being asked",
    Canary.SILENT: "no canary answered",
}
_WITHIN = frozenset({Moved.PROMPT, Moved.DECODED})


def triage(situation: Situation) -> Triage:
    """Where to look first, and why. The canary is asked whenever it could confirm or refute that."""
    faulty = _faulty(situation)
    decided = faulty or _sampler(situation) or _by_traffic(situation) or _undetermined(situation)
    verdict, reasons = decided
    if situation.replicas:
        reasons = (*reasons, _about_replicas(situation.replicas))
    return Triage(verdict, reasons, ask_canary=faulty is None and situation.canary is Canary.UNKNOWN)


def _about_replicas(replicas: tuple[str, ...]) -> str:
    named = f"Only {_listed(replicas)} {'is' if len(replicas) == 1 else 'are'} affected"
    return f"{named}: look at the machine, its driver and what was deployed there before the model itself."


def _faulty(situation: Situation) -> _Decided | None:
    """What cannot come from traffic."""
    reasons = []
    if situation.canary is Canary.MOVED or Moved.CANARY in situation.moved:
        named = f", beginning with: {situation.place}" if situation.place else ""
        reasons.append(f"The canary moved: the same input no longer gives the same numbers{named}.")
    if Moved.NONFINITE in situation.moved:
        reasons.append("The model computed values that are not finite.")
    if Moved.CONSISTENCY in situation.moved:
        reasons.append("The same request computed twice differs: suspect the cache of keys and values first.")
    if reasons and Moved.SAMPLER in situation.moved:
        reasons.append("The sampler's own test moved as well: it may be a second fault.")
    return (Verdict.MODEL, tuple(reasons)) if reasons else None


def _sampler(situation: Situation) -> _Decided | None:
    if Moved.SAMPLER not in situation.moved or Moved.PROMPT in situation.moved:
        return None
    reasons = (
        "Drawn tokens do not follow the distribution that the sampler was given, whatever the traffic is.",
        f"Prompt rows are still, and {_CANARY_WORDS[situation.canary]}.",
    )
    return Verdict.SAMPLER, reasons


def _by_traffic(situation: Situation) -> _Decided | None:
    moved = situation.moved
    within, is_mixture = sorted(_WITHIN & moved), bool({Moved.OUTSIDE, Moved.CLASSES} & moved)
    is_beyond = Moved.BEYOND in moved
    if not within and not is_mixture and not is_beyond:
        return None
    reasons = []
    if Moved.OUTSIDE in moved:
        reasons.append("Requests fall outside every class of the reference: novel traffic, or a fault.")
    if is_beyond:
        reasons.append(
            "Prompts are unlike every healthy one of the class nearest to them: novel traffic, or a fault."
        )
    if Moved.CLASSES in moved:
        reasons.append("The share of the classes of requests has changed.")
    if within:
        reasons.append(f"Requests differ from healthy ones of the same class ({_listed(within)}).")
    if Moved.SAMPLER in moved:
        reasons.append("The sampler's own test moved as well: it may be a second fault.")
    reasons.append(f"{_CANARY_WORDS[situation.canary].capitalize()}.")
    # In their class, or nearest to it: where no canary can say that the model is as it was, that is a fault.
    if not is_mixture and (not is_beyond or situation.canary is Canary.SILENT):
        return Verdict.MODEL, tuple(reasons)
    return _BY_CANARY[situation.canary], tuple(reasons)


def _undetermined(situation: Situation) -> _Decided:
    what = _listed(sorted(situation.moved)) or "nothing that is known"
    reason = f"What moved ({what}) fits no single cause; {_CANARY_WORDS[situation.canary]}."
    return Verdict.UNDETERMINED, (reason,)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
