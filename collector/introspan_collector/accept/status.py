"""What a producer says of itself as it arrived in, the same checked and cut to its limits out."""

import sys
from collections import Counter

from introspan_collector.model import DisabledSignal, ProducerStatus
from introspan_wire.codec import FrameError
from introspan_wire.limits import DETAIL_CHARACTERS, NAME_CHARACTERS, REASON_CHARACTERS, STATUS_ENTRIES
from introspan_wire.v1 import observation_pb2 as pb


def checked_status(message: pb.ProducerStatus) -> ProducerStatus:
    """The status in a message, texts cut to their limits. Raises FrameError naming field, value and remedy."""
    for name in ("drops", "disabled"):
        if len(getattr(message, name)) > STATUS_ENTRIES:
            raise FrameError(
                f"status.{name}", f"must be at most {STATUS_ENTRIES}, got {len(getattr(message, name))}"
            )
    _check_draws(message)
    for name in ("capture_seconds", "queue_age_seconds"):
        _check_between(message, name, sys.float_info.max)
    _check_between(message, "sampling_probability", 1.0)
    drops = {unit: _by_reason(message, unit) for unit in ("segments", "requests", "rows")}
    return ProducerStatus(
        measured_steps=message.measured_steps,
        measured_rows=message.measured_rows,
        capture_seconds=message.capture_seconds,
        drops=drops["segments"],
        dropped_requests=drops["requests"],
        dropped_rows=drops["rows"],
        disabled=tuple(
            DisabledSignal(
                disabled.signal[:NAME_CHARACTERS],
                disabled.reason[:REASON_CHARACTERS],
                disabled.detail[:DETAIL_CHARACTERS],
            )
            for disabled in message.disabled
        ),
        probe_errors=message.probe_errors,
        sampler_rows_skipped=message.sampler_rows_skipped,
        attention_rows_skipped=message.attention_rows_skipped,
        sampling_probability=message.sampling_probability,
        sampler_tokens=message.sampler_tokens,
        sampler_low=message.sampler_low,
        sampler_high=message.sampler_high,
        sampler_sum=message.sampler_sum,
        queue_age_seconds=message.queue_age_seconds,
    )


def _by_reason(message: pb.ProducerStatus, unit: str) -> tuple[tuple[str, int], ...]:
    # Reasons may be the same once cut; a metric needs each once.
    drops: Counter[str] = Counter()
    for drop in message.drops:
        drops[drop.reason[:REASON_CHARACTERS]] += getattr(drop, unit)
    return tuple((reason, count) for reason, count in drops.items() if count)


def _check_draws(message: pb.ProducerStatus) -> None:
    tokens = message.sampler_tokens
    if message.sampler_low + message.sampler_high > tokens:
        raise FrameError(
            "status.sampler_low",
            f"must be at most sampler_tokens = {tokens} together with sampler_high, "
            f"got {message.sampler_low} and {message.sampler_high}",
        )
    if not 0 <= message.sampler_sum <= tokens:
        raise FrameError(
            "status.sampler_sum",
            f"must be between 0 and sampler_tokens = {tokens}, got {message.sampler_sum}",
        )


def _check_between(message: pb.ProducerStatus, name: str, most: float) -> None:
    value = getattr(message, name)
    if not 0 <= value <= most:  # written so that NaN fails
        at_most = "finite" if most > 1 else f"<= {most:g}"
        raise FrameError(f"status.{name}", f"must be >= 0 and {at_most}, got {value}")
