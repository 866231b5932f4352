"""A duration as people write it in, seconds out."""

import re

_LONGEST_DAYS = 36_500
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str) -> float:
    """Seconds of a text such as 90s, 10m, 2h or 7d, of a century at most. Raises ValueError for others."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise ValueError(f"{text} is not a duration: give a number and s, m, h or d, for example 10m")
    duration = float(match[1]) * _SECONDS[match[2]]
    if duration > _LONGEST_DAYS * _SECONDS["d"]:
        raise ValueError(f"{text} is too long a duration: give at most {_LONGEST_DAYS}d")
    return duration
