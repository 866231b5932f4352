"""Measured rows and reference values in; the largest difference of each column out."""

import numpy as np
from engine import Call, Result
from reference import HuggingFace, Sampling, repetition

from introspan.draw import draw

TOLERANCE = {
    "attention.entropy": 1e-3,
    "attention.sink_mass": 1e-4,
    "attention.recent_mass": 1e-4,
    "residual.log_rms": 1e-3,
    "residual.log_peak": 1e-3,
    "residual.turn": 1e-3,
    "residual.update_ratio": 1e-3,
    "residual.velocity": 1e-3,
    "residual.curvature": 1e-3,
    "residual.projection": 1e-4,  # times ‖ĥ‖ = √d
    "residual.nonfinite": 0.0,
    "output.entropy": 1e-3,
    "output.margin": 1e-4,
    "output.logprob": 1e-3,
    "output.nonfinite": 0.0,
    "output.repetition": 0.0,
    "sampler.pit": 1e-3,
    "sampler.greedy_mismatch": 0.0,
}
"""Largest allowed difference: nats, probabilities, natural or decimal logarithms, ratios, radians, counts."""


class Comparison:
    """Compares every column of a result with the reference, request by request."""

    def __init__(self, result: Result, reference: HuggingFace, hidden_size: int, stride: int = 1) -> None:
        self.result = result
        self.reference = reference
        self.hidden_size = hidden_size
        self.stride = stride
        self.worst = np.full(len(result.columns), -1.0)
        """Largest difference of each column so far, relative to its tolerance's unit; −1 = never compared."""

    def add(self, call: Call, name: str, generated: list[int], projection: np.ndarray) -> None:
        """Compares the rows of one request (or of one of its samples, by its own name)."""
        mine = self.result.rows_of(name)
        tokens = [*call.prompt, *generated]
        positions = np.arange(len(call.prompt) - 1, len(tokens) - 1)
        place, is_last = self._burst(positions - len(call.prompt), self.result.hashes[name])
        measured = np.flatnonzero(place >= -1)
        assert np.array_equal(self.result.row_positions[mine], positions[measured]), f"rows of {name}"
        asked = Sampling(
            **{k: v for k, v in call.params.items() if k in {"temperature", "top_k", "top_p", "min_p"}}
        )
        v = draw(np.full(len(positions), self.result.seeds[name], np.uint64), positions)
        expected = self.reference.measure(tokens, len(call.prompt), projection, asked, v).values
        expected["output.repetition"] = np.array(
            [repetition(generated[: i + 1]) for i in range(len(generated))], float
        )
        if asked.temperature > 0:
            expected.pop("sampler.greedy_mismatch", None)
        if "repetition_penalty" in call.params:
            expected = {
                signal: value for signal, value in expected.items() if not signal.startswith("sampler.")
            }
        self._compare(name, mine, expected, measured, place, is_last)

    def _burst(self, decoded: np.ndarray, request_hash: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each position: its place in its burst (−1 prompt, −2 not measured), and whether all is measured there."""
        if self.stride == 1:
            return decoded.copy(), np.ones(len(decoded), bool)
        cycle = (decoded + (request_hash >> 32)) % self.stride
        place = np.where(cycle < 3, np.minimum(cycle, decoded), -2)
        place[decoded == -1] = -1
        return place, (decoded == -1) | (cycle == 2)

    def _compare(
        self,
        name: str,
        mine: np.ndarray,
        expected: dict[str, np.ndarray],
        measured: np.ndarray,
        place: np.ndarray,
        is_last: np.ndarray,
    ) -> None:
        for column, (signal, layer, head, component) in enumerate(self.result.columns):
            if signal not in expected:
                assert np.isnan(self.result.values[mine, column]).all(), (
                    f"{signal} of {name} is measured unasked"
                )
                continue
            index = tuple(axis for axis in (layer, head, component) if axis >= 0)
            want = expected[signal][(slice(None), *index)].copy()
            # Differences over tokens are taken inside a burst; what is costly is measured at its last token.
            want[place < {"residual.velocity": 1, "residual.curvature": 2}.get(signal, -1)] = np.nan
            if not signal.startswith("residual.") and signal != "output.repetition":
                want[~is_last] = np.nan
            want = want[measured]
            got = self.result.values[mine, column].copy()
            if signal == "residual.curvature":
                # The direction of a step as short as float32 rounding is noise, and so is whether it is ≥ 1e-6.
                velocity = expected["residual.velocity"][:, layer]
                short = (np.minimum(velocity, np.concatenate([[np.inf], velocity[:-1]])) < 1e-3)[measured]
                got[short] = want[short] = np.nan
            assert np.array_equal(np.isnan(got), np.isnan(want)), (
                f"{signal} {index} of {name}: measured where?"
            )
            unit = np.sqrt(self.hidden_size) if signal == "residual.projection" else 1.0
            if not np.isnan(want).all():
                self.worst[column] = max(self.worst[column], np.nanmax(np.abs(got - want)) / unit)

    def report(self) -> dict[str, float]:
        """Largest difference of each signal."""
        signals = np.array([column[0] for column in self.result.columns])
        return {
            signal: float(self.worst[signals == signal].max()) for signal in dict.fromkeys(signals.tolist())
        }

    def failures(self) -> list[str]:
        """Columns over their tolerance, and columns that were never compared."""
        return [
            f"{column}: " + ("never compared" if worst < 0 else f"off by {worst:.3g}")
            for column, worst in zip(self.result.columns, self.worst, strict=True)
            if worst < 0 or not worst <= TOLERANCE[column[0]]
        ]
