"""Trials of shares in, a sentence for each kind of fault of which some were noticed late or never out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.faults.traffic_protocol import TRAFFIC

_TRIED = {
    "template": (
        "Nothing was tried on it: why a message without its template takes longer was not looked into. What tells it "
        "at once is the canary."
    ),
    "16 %": (
        "Caches: answers of six tokens that are hardly told from healthy ones. Tried was to score by the three rarest "
        "signals as well, and it was dropped for its alarm in a control."
    ),
    "0.8 %": (
        "It is the sets that single requests are hardly told of, of which 28 in 3,500 are faulty. Beyond the two ways "
        "of scoring named here nothing was tried."
    ),
}


# Any: JSON.
def late(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """found: trials with internals."""
    bounds = TRAFFIC["targets"]["requests"] | {
        "template": TRAFFIC["targets"]["template_ticks"] * TRAFFIC["population"]["a_tick"]
    }
    for kind, tried in _TRIED.items():
        some = [
            one
            for one in found
            if one["kind"] == kind and not one["set"].startswith(("control", "kv-swapped"))
        ]
        missed = [one for one in some if one["first"] is None or one["first"]["requests"] > bounds[kind]]
        if missed:
            yield (
                f"Missed: {kind}, {len(missed)} of {len(some)} trials not within {bounds[kind]:,} requests: "
                f"{_sets(missed)}. {tried}"
            )


def _sets(missed: Sequence[Mapping[str, Any]]) -> str:
    never = Counter(one["set"] for one in missed if one["first"] is None)
    return ", ".join(
        f"{name} {count}" + (f" (never {never[name]})" if never[name] else "")
        for name, count in sorted(Counter(one["set"] for one in missed).items())
    )
