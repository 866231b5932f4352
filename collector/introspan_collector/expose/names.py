"""Signals in, Prometheus names out: the one place that derives them."""

from introspan_wire.signals import CATALOGUE

_UNITS = {"nat": "nats", "rad": "radians", "{value}": "values", "{token}": "tokens", "1": ""}


def unit_name(unit: str) -> str:
    """Prometheus' plural name of a UCUM unit; "" for a plain number."""
    return _UNITS[unit]


def histogram_name(signal: str) -> str:
    """Name of the histogram of a signal's values: introspan_<signal>_<unit>."""
    return _join("introspan", signal.replace(".", "_"), unit_name(CATALOGUE[signal].unit))


def gauge_name(signal: str) -> str:
    """Name of the gauge of a signal's mean over the window: introspan_<signal>_window_mean_<unit>."""
    return _join("introspan", signal.replace(".", "_"), "window_mean", unit_name(CATALOGUE[signal].unit))


def event_name(signal: str) -> str:
    """Name of the counter of a signal's events, without _total."""
    if signal == "output.repetition":
        return "introspan_output_repetition_segments"
    return _join("introspan", signal.replace(".", "_"), "events")


def _join(*words: str) -> str:
    return "_".join(word for word in words if word)
