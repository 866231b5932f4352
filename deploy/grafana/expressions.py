"""Models that are chosen in, what several dashboards ask of them out."""

from deploy.grafana.look import BAD, FINE, NOTE, UNKNOWN, words
from deploy.grafana.queries import most, of

INCIDENT = words({0: ("quiet", FINE), 1: ("ticket", NOTE), 2: ("page", BAD), 3: ("page and ticket", BAD)})
NO_LAYER = words({-1: ("none", FINE)})
REFERENCE = words({0: ("collecting", UNKNOWN), 1: ("provisional", NOTE), 2: ("frozen", FINE)})
CANARY = words(
    {
        0: ("not asked", UNKNOWN),
        1: ("gathering", UNKNOWN),
        2: ("still", FINE),
        3: ("deviating", BAD),
        4: ("silent", NOTE),
    }
)
TOLD_OF = words({1: ("told", BAD)})
SWITCHED_OFF = words({1: ("switched off", NOTE)})


def alarms(severity: str, *who: str) -> str:
    """1 while there is an incident of a severity, by model and adapter."""
    return of("introspan_alarm_active", *who, f'severity="{severity}"')


def incident(by: str, *who: str) -> str:
    """The number of a state in INCIDENT."""
    return f"{most(by, alarms('warning', *who))} + 2 * {most(by, alarms('critical', *who))}"


def evidence(copy: str, *who: str, detector: str = "all") -> str:
    """Decimal logarithm of evidence over threshold, of one detector or of all together. copy: page or ticket."""
    return of("introspan_evidence_level", *who, f'copy="{copy}"', f'detector="{detector}"')


def reference(by: str, *who: str) -> str:
    """The number of a state in REFERENCE; of several the one that is least far."""
    provisional = of("introspan_reference_state", *who, 'state="provisional"')
    frozen = of("introspan_reference_state", *who, 'state="frozen"')
    states = f"{provisional} + ignoring(state) 2 * {frozen}"
    return f"min by ({by}) ({states})" if by else f"min({states})"


def silence(*who: str) -> str:
    """Seconds since a worker was heard from."""
    return f"time() - {of('introspan_sdk_last_seen_timestamp_seconds', *who)}"


def warm_up(what: str, *who: str) -> str:
    """Share of the clusters or of the seconds that the next state of a reference takes."""
    needed = of(f"introspan_reference_needed_{what}", *who)
    return f"min by (model, adapter) ({of(f'introspan_reference_{what}', *who)} / ({needed} > 0))"


def canary(*who: str) -> str:
    """The number of a state in CANARY, by model."""
    states = ("gathering", "still", "deviating", "silent")
    ones = (most("model", of("introspan_canary_state", *who, f'state="{state}"')) for state in states)
    return " + ".join(f"{number} * {one}" for number, one in enumerate(ones, 1))
