"""A signal of the catalogue in, Grafana's name of its unit out."""

from introspan_wire.signals import Signal

_UNITS = {"1": "none", "nat": "suffix: nat", "rad": "radian", "{value}": "none", "{token}": "none"}


def unit(signal: Signal) -> str:
    """The unit of a panel that shows its values."""
    return _UNITS[signal.unit]
