"""A performance so far in, what there is to say about it out."""

from collections.abc import Iterator

from demo.phases import Director, Phase
from demo.stage import Stage
from demo.watch_view import Act
from demo.watched import Incident


def act(stage: Stage) -> Act:
    """What is going on now."""
    director = stage.director
    now = stage.clock()
    return Act(
        director.phase,
        now - director.began.get(director.phase, now),
        stage.fault.says,
        stage.server.doing,
        stage.note,
        _outcome(director),
    )


def shown_incident(stage: Stage) -> Incident | None:
    """The incident of the fault, else any."""
    return stage.director.alarm or next(iter(stage.seen.incidents), None)


def plain_act(stage: Stage) -> str:
    """The act in one line that changes only with what happens."""
    now = act(stage)
    incident = shown_incident(stage)
    parts = [f"-- {now.phase}"]
    if now.phase is Phase.FAULT:
        parts.append(now.says)
    parts += [line for line in (now.note, now.outcome) if line]
    if incident is not None:
        where = f", {incident.layer}" if incident.layer else ""
        parts.append(f"triage: {incident.verdict}{where}")
    return "; ".join(parts)


def story(director: Director, now: float) -> Iterator[str]:
    """What happened, a line for each act."""
    acts = list(director.began.items())
    for (phase, began), (_, ended) in zip(acts, [*acts[1:], (None, now)], strict=True):
        yield f"{phase}: {ended - began:.0f} s"
    count = len(director.false_alarms)
    yield f"alarms before anything was done to the system: {count or 'none'}"
    for incident in director.false_alarms:
        yield f"  {incident.alertname}: {'; '.join(incident.sentences[:1])}"
    if director.alarm is not None:
        where = f", {director.alarm.layer}" if director.alarm.layer else ""
        yield f"{_outcome(director)}: {director.alarm.alertname}, triage {director.alarm.verdict}{where}"
    elif Phase.FAULT in director.began:
        yield "no alarm until the end: give it more DEMO_SECONDS"
    elif director.has_fault:
        yield f"the end came while {director.phase}: give it more DEMO_SECONDS to see an alarm"


def _outcome(director: Director) -> str:
    if director.alarmed_at is None:
        return ""
    said = f"alarm {director.alarmed_at - director.began[Phase.FAULT]:.0f} s after the fault began"
    if director.resolved_at is not None and Phase.OVER in director.began:
        said += (
            f", resolved {director.resolved_at - director.began[Phase.OVER]:.0f} s after it was taken back"
        )
    return said
