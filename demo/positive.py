"""A number of the command line in, the same out where it is above zero."""

import argparse
import math


def positive(text: str) -> float:
    """A finite number above zero. Raises argparse.ArgumentTypeError, which argparse says with the option's name."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number > 0, got {text!r}")
    return value
