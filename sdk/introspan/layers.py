"""The text of a layer setting in, the indices of layers of a model out."""

from dataclasses import dataclass


class SettingsError(ValueError):
    """A setting that cannot be used. The text names key, value and remedy."""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """Which layers of a model to measure, before its depth is known.

    wanted is a number of layers, "all", or the layers themselves; key names the setting in errors.
    """

    key: str
    wanted: int | str | tuple[int, ...]

    @classmethod
    def parse(cls, key: str, text: str) -> "LayerSpec":
        """The spec for `8` (that many), `all`, or `0,5,10` (those; one alone is `5,`). Raises ValueError."""
        if text.strip() == "all":
            return cls(key, "all")
        items = [item.strip() for item in text.split(",")]
        numbers = [int(item) for item in items if item.isdecimal()]
        if len(numbers) != len([item for item in items if item]) or not numbers:
            raise ValueError("must be a number of layers, 'all', or layers as in 0,5,10")
        if len(items) > 1:
            return cls(key, tuple(sorted(set(numbers))))
        if numbers[0] < 1:
            raise ValueError("must be a number of layers ≥ 1 (layer 0 alone is '0,')")
        return cls(key, numbers[0])

    def resolve(self, layer_count: int) -> tuple[int, ...]:
        """The layers of a model of that depth, ascending. Raises SettingsError for a layer that it lacks.

        A number n of layers is spaced evenly from the first layer to the last, both included, since faults
        of the embedding and of the head show there; n = 1 is the middle layer, n ≥ layer_count every layer.
        """
        if isinstance(self.wanted, tuple):
            if self.wanted[-1] >= layer_count:
                raise SettingsError(
                    f"{self.key} must name layers below {layer_count}, the depth of this model, "
                    f"got {self.wanted[-1]}"
                )
            return self.wanted
        if isinstance(self.wanted, str) or self.wanted >= layer_count:
            return tuple(range(layer_count))
        gaps = self.wanted - 1
        if gaps == 0:
            return (layer_count // 2,)
        return tuple((2 * i * (layer_count - 1) + gaps) // (2 * gaps) for i in range(self.wanted))
