"""Numbers, times and states in, what people read of them out."""

import math
import time
from datetime import UTC, datetime

_MISSING = "–"
_SCALES = ((86_400 * 2, 86_400, "d"), (3600 * 2, 3600, "h"), (120, 60, "min"), (0, 1, "s"))
_UNITS = {"nat": "nats", "rad": "rad", "1": "", "{token}": "tokens", "{value}": "values"}

STATES = {
    "critical": ("▲", "critical"),
    "warning": ("◆", "warning"),
    "open": ("●", "open"),
    "acknowledged": ("◐", "acknowledged"),
    "resolved": ("✓", "resolved"),
    "quiet": ("✓", "no incident"),
    "frozen": ("✓", "frozen reference"),
    "provisional": ("◐", "provisional reference"),
    "none": ("○", "collecting"),
    "unwatched": ("–", "not watched"),
    "deviating": ("▲", "deviates"),
    "equivalent": ("◆", "differs, but not in its answers"),
    "still": ("✓", "as its baseline"),
    "gathering": ("◐", "gathering a baseline"),
    "silent": ("◆", "answers no more"),
    "absent": ("○", "no canary"),
}
"""A sign and words for each state: nothing is told by colour alone."""


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, – for one that is not there."""
    if value is None or not math.isfinite(value):
        return "∞" if value is not None and math.isinf(value) else _MISSING
    if value == 0:
        return "0"
    if abs(value) >= 10**5 or abs(value) < 10**-3:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    text = f"{value:.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}"
    return text.replace("-", "−")


def count(value: float | None) -> str:
    """A whole number with thin spaces between thousands."""
    return _MISSING if value is None else f"{value:,.0f}".replace(",", "\u202f")


def percent(value: float | None) -> str:
    """A share as percent."""
    return _MISSING if value is None or not math.isfinite(value) else f"{100 * value:.3g}\u202f%"


def duration(seconds: float | None) -> str:
    """A length of time in its fitting unit."""
    if seconds is None or not math.isfinite(seconds):
        return _MISSING
    for least, size, unit in _SCALES:
        if seconds >= least:
            return f"{seconds / size:.0f}\u202f{unit}"
    return f"{seconds:.0f}\u202fs"


def age(unix_seconds: float | None, now: float | None = None) -> str:
    """How long ago a time was."""
    if unix_seconds is None:
        return _MISSING
    passed = (time.time() if now is None else now) - unix_seconds
    return "now" if passed < 1 else f"{duration(passed)} ago"


def utc(unix_seconds: float | None) -> str:
    """A time for reading, in UTC."""
    return (
        _MISSING if unix_seconds is None else f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%d %H:%M:%S}"
    )


def iso(unix_seconds: float) -> str:
    """A time for programs."""
    return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def unit(name: str) -> str:
    """A UCUM unit for reading."""
    return _UNITS.get(name, name)


FILTERS = {
    "number": number,
    "count": count,
    "percent": percent,
    "duration": duration,
    "age": age,
    "utc": utc,
    "iso": iso,
    "unit": unit,
}
GLOBALS = {"STATES": STATES}
