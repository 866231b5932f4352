"""What has moved in, what is probably the matter out, with the reasons in words. An annotation, never a label."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from introspan_collector.detect.evidence import Stream


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

    first_deviating: index of the first residual stream that left its floor, where stream ℓ enters layer ℓ; None
    where none did. outputs_moved: the canary's log-probabilities left theirs. replicas: those singled out.
    """

    moved: frozenset[Moved]
    canary: Canary
    first_deviating: int | None = None
    outputs_moved: bool = False
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Triage:
    """A verdict, its reasons in sentences, and whether the canary should be asked at once to make sure."""

    verdict: Verdict
    reasons: tuple[str, ...]
    ask_canary: bool = False


def layer_name(first_deviating: int | None, *, outputs_moved: bool) -> str:
    """The part of the model at fault, "" where none can be named.

    Stream ℓ enters layer ℓ, so what first shows there was done by layer ℓ - 1; stream 0 is the embedding's, and
    outputs that move while every stream is still are the doing of what comes after the last layer.
    """
    if first_deviating is None:
        return "head" if outputs_moved else ""
    return "embedding" if first_deviating == 0 else f"layer {first_deviating - 1}"


_BY_DETECTOR = {
    "sampler": Moved.SAMPLER,
    "canary": Moved.CANARY,
    "replicas": Moved.REPLICA,
}
_BY_SIGNAL = {
    "output.nonfinite": Moved.NONFINITE,
    "consistency.reprefill": Moved.CONSISTENCY,
}


def moved_in(streams: Iterable[Stream]) -> frozenset[Moved]:
    """What these streams of evidence are about."""
    return frozenset(_moved(stream) for stream in streams)


def _moved(stream: Stream) -> Moved:
    if stream.signal in _BY_SIGNAL:
        return _BY_SIGNAL[stream.signal]
    if stream.detector == "classes":
        return Moved.OUTSIDE if stream.side == "outside" else Moved.CLASSES
    by_kind = Moved.PROMPT if stream.kind == "prompt" else Moved.DECODED
    return _BY_DETECTOR.get(stream.detector, by_kind)


_CANARY_WORDS = {
    Canary.STILL: "the canary, asked since, is still",
    Canary.UNKNOWN: "the canary has not been asked since",
    Canary.ASKED: "the canary has been asked and has not answered yet",
    Canary.SILENT: "no canary answered",
}
_ENGINE = frozenset({Moved.CANARY, Moved.NONFINITE, Moved.CONSISTENCY})
_WITHIN = frozenset({Moved.PROMPT, Moved.DECODED})


def triage(situation: Situation) -> Triage:
    """Where to look first, and why."""
    decided = _faulty(situation) or _sampler(situation) or _by_traffic(situation) or _undetermined(situation)
    singled_out = situation.replicas
    if not singled_out:
        return decided
    named = f"Only {_listed(singled_out)} {'is' if len(singled_out) == 1 else 'are'} affected"
    reason = f"{named}: look at the machine, its driver and what was deployed there before the model itself."
    return Triage(decided.verdict, (*decided.reasons, reason), decided.ask_canary)


def _faulty(situation: Situation) -> Triage | None:
    """What cannot come from traffic."""
    reasons = []
    if situation.canary is Canary.MOVED or Moved.CANARY in situation.moved:
        where = layer_name(situation.first_deviating, outputs_moved=situation.outputs_moved)
        named = f"; what deviates first is the doing of the {where}" if where else ""
        reasons.append(f"The canary moved: the same input no longer gives the same numbers{named}.")
    if Moved.NONFINITE in situation.moved:
        reasons.append("The model computed values that are not finite.")
    if Moved.CONSISTENCY in situation.moved:
        reasons.append("The same request computed twice differs: suspect the cache of keys and values first.")
    if reasons and Moved.SAMPLER in situation.moved:
        reasons.append("The sampler's own test moved as well: it may be a second fault.")
    return Triage(Verdict.MODEL, tuple(reasons)) if reasons else None


def _sampler(situation: Situation) -> Triage | None:
    if Moved.SAMPLER not in situation.moved or Moved.PROMPT in situation.moved:
        return None
    reasons = (
        "Drawn tokens do not follow the distribution that the sampler was given, whatever the traffic is.",
        f"Prompt rows are still, and {_CANARY_WORDS[situation.canary]}.",
    )
    return Triage(Verdict.SAMPLER, reasons)


def _by_traffic(situation: Situation) -> Triage | None:
    moved = situation.moved
    within, outside = sorted(_WITHIN & moved), Moved.OUTSIDE in moved
    if not within and not outside and Moved.CLASSES not in moved:
        return None
    mixed = outside or Moved.CLASSES in moved
    reasons = []
    if outside:
        reasons.append("Requests fall outside every class of the reference: novel traffic, or a fault.")
    if Moved.CLASSES in moved:
        reasons.append("The share of the classes of requests has changed.")
    if within:
        reasons.append(f"Requests differ from healthy ones of the same class ({_listed(within)}).")
    if Moved.SAMPLER in moved:
        reasons.append("The sampler's own test moved as well: it may be a second fault.")
    if mixed and situation.canary in (Canary.UNKNOWN, Canary.ASKED):
        reasons.append("The canary is asked whether the model has changed.")
        return Triage(Verdict.PENDING, tuple(reasons), ask_canary=situation.canary is Canary.UNKNOWN)
    reasons.append(f"{_CANARY_WORDS[situation.canary].capitalize()}.")
    if not mixed:
        return Triage(Verdict.MODEL, tuple(reasons))
    return Triage(
        Verdict.TRAFFIC if situation.canary is Canary.STILL else Verdict.UNDETERMINED, tuple(reasons)
    )


def _undetermined(situation: Situation) -> Triage:
    what = _listed(sorted(situation.moved)) or "nothing that is known"
    reason = f"What moved ({what}) fits no single cause; {_CANARY_WORDS[situation.canary]}."
    return Triage(Verdict.UNDETERMINED, (reason,), ask_canary=situation.canary is Canary.UNKNOWN)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
