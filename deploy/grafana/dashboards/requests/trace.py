"""From an alarm to a request and its trace: words and the links."""

from urllib.parse import quote

from deploy.grafana.layout import Section
from deploy.grafana.panels import Face, note

_PANES = (
    '{"datasource":"${traces}","queries":[{"refId":"A","queryType":"traceql",'
    '"query":"${trace_id}"}],"range":{"from":"now-24h","to":"now"}}'
)
_EXPLORE = f"/explore?left={quote(_PANES, safe='${}')}"  # variables are put in by Grafana, in the address

_WORDS = f"""\
**From an alarm.** Its annotation `trace_ids` names requests that show the fault. Copy one into *Trace id* above, then
[open the trace]({_EXPLORE}).

**From a panel.** Points are requests that carried a `traceparent`. Hover over one, take *Open the trace*.

**Without a trace.** `introspan observations --request-id ID` shows what was measured of a request;
`introspan alarms show ID` which requests an incident is about.
"""

SECTION = Section(
    "From an alarm to the trace of a request",
    (
        note(
            Face(
                "How to get there",
                "Ways from an alarm, or from a point on a panel below, to the trace of the request. Bad: no points "
                "at all: callers send no traceparent, or Prometheus runs without --enable-feature=exemplar-storage.",
                "none",
                width=24,
                height=5,
            ),
            _WORDS,
        ),
    ),
)
