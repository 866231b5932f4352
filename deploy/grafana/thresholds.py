"""The bounds that the collector itself works with in, the same as panels draw them out."""

from deploy.grafana.look import BAD, NOTE, bounds
from introspan_collector.detect.canary.comparison import PAGE_RATIO

PAGE_FLOORS = PAGE_RATIO
"""Two rounds of a canary beyond it page."""

CANARY_ABOVE = ((1.0, NOTE), (PAGE_FLOORS, BAD))

CANARY = bounds(*CANARY_ABOVE)

EVIDENCE = bounds((-1.0, NOTE), (0.0, BAD))
"""Of the decimal logarithm of evidence over threshold: a tenth of the way, and the alarm."""

QUEUE_SECONDS = 30.0
"""Age of what waits in a worker beyond which IntrospanQueueOld fires."""

QUIET_SECONDS = 60.0
SILENT_SECONDS = 300.0
"""Silence of a worker that is worth a look, and that is not explained by a pause between requests."""
