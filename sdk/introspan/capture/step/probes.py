"""What a worker measures with, together."""

from dataclasses import dataclass

from introspan.capture.attention.probe import AttentionProbe
from introspan.capture.output.probe import OutputProbe
from introspan.capture.stream.canary import CanaryProbe
from introspan.capture.stream.probe import StreamProbe
from introspan.capture.stream.reprefill import ReprefillProbe


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """What measures; stream, attention, output are None where the model does not offer them or another rank measures.

    canary is None where no canaries are known, reprefill where no requests are sent again.
    """

    stream: StreamProbe | None
    attention: AttentionProbe | None
    output: OutputProbe | None
    canary: CanaryProbe | None = None
    reprefill: ReprefillProbe | None = None
