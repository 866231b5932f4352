"""Query parameters in, checked values out."""

from collections.abc import Mapping

from introspan_wire.signals import CATALOGUE


class ParameterError(ValueError):
    """A query parameter that cannot be used: which, its value, and what to give instead."""

    def __init__(self, key: str, value: str, remedy: str) -> None:
        super().__init__(f"{key} = {value!r}: {remedy}")
        self.key = key
        self.value = value
        self.remedy = remedy


class Parameters:
    """The parameters of one request, each asked for by its type. Raises ParameterError for unknown ones."""

    def __init__(self, given: Mapping[str, str], known: tuple[str, ...]) -> None:
        for key, value in given.items():
            if key not in known:
                raise ParameterError(
                    key, value, f"not a parameter here; known are {', '.join(known) or 'none'}"
                )
        self._given = given

    def text(self, key: str) -> str | None:
        """A parameter as given; None if it was not."""
        return self._given.get(key)

    def signal(self, key: str) -> str | None:
        """The name of a signal in the catalogue."""
        value = self._given.get(key)
        if value is not None and value not in CATALOGUE:
            raise ParameterError(key, value, f"must be a signal: {', '.join(CATALOGUE)}")
        return value

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from low to high."""
        value = self._given.get(key)
        if value is None:
            return default
        try:
            number = int(value)
        except ValueError as error:
            raise ParameterError(key, value, f"must be a whole number from {low} to {high}") from error
        if not low <= number <= high:
            raise ParameterError(key, value, f"must be from {low} to {high}")
        return number

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number from low to high."""
        value = self._given.get(key)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError as error:
            raise ParameterError(key, value, f"must be a number from {low:.12g} to {high:.12g}") from error
        # Written so that NaN fails.
        if not low <= number <= high:
            raise ParameterError(key, value, f"must be from {low:.12g} to {high:.12g}")
        return number
