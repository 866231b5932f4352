"""Files of measured sets in, one pool of requests out, from which batches of the log are drawn in any order."""

from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.faults.tables import load
from introspan_collector.model import Batch, Origin
from introspan_wire.codec import SegmentTable
from introspan_wire.signals import Kind

ORIGIN = Origin("bench", "smollm2", "r0", "f", "vllm", "0.32.0", "float32", 30, 9, "bench")
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """n requests: their prompt rows and first decoded segments, table rows aligned, and which set each is of.

    prompt_logprob: mean log-probability of the prompt's tokens [n], NaN where it was not asked for.
    """

    prompt: SegmentTable
    decoded: SegmentTable
    of_set: tuple[str, ...]
    prompt_logprob: NDArray[np.float64]

    def rows(self, prefix: str) -> Rows:
        """Requests of the sets whose names begin so."""
        return np.flatnonzero([name.startswith(prefix) for name in self.of_set])

    def batch(self, rows: Rows, clusters: NDArray[np.uint64], now: float, first: int) -> Batch:
        """Those requests as new ones that arrive now; first: the number in the id of the first."""
        ids = [f"bench-{first + i}" for i in range(len(rows))]
        when = np.full(len(rows), int(now * 1e9), np.uint64)
        tables = tuple(
            replace(_taken(table, rows), request_id=ids, cluster_key=clusters, time_unix_nano=when)
            for table in (self.prompt, self.decoded)
        )
        return Batch(0, 1, int(now * 1e9), b"p" * 16, 1, ORIGIN, tables, None)


def read_pool(folder: Path) -> Pool:
    """Every set of a folder. Raises ValueError where there is none."""
    found = [_aligned(path) for path in sorted(folder.glob("*.npz")) if ".partial" not in path.name]
    if not found:
        raise ValueError(f"no set of requests is in {folder}: run python -m bench.faults.gather {folder}")
    prompts, decoded = [one[0] for one in found], [one[1] for one in found]
    names = [path.stem for path in sorted(folder.glob("*.npz")) if ".partial" not in path.name]
    of_set = tuple(name for name, table in zip(names, prompts, strict=True) for _ in range(len(table)))
    return Pool(_joined(prompts), _joined(decoded), of_set, np.concatenate([one[2] for one in found]))


def drawn(folder: Path) -> NDArray[np.float64]:
    """Of each set the tokens drawn, those with U in either tail, and the sum of U, in the order of names [sets, 4]."""
    counts = [load(path)[1]["drawn"] for path in sorted(folder.glob("*.npz")) if ".partial" not in path.name]
    return np.array(counts, np.float64).reshape(-1, 4)


def _aligned(path: Path) -> tuple[SegmentTable, SegmentTable, NDArray[np.float64]]:
    tables, extra = load(path)
    prompt, decoded = tables[Kind.PROMPT], tables[Kind.DECODED]
    first = {name: i for i, name in enumerate(decoded.request_id) if decoded.segment_index[i] == 1}
    both = np.array([i for i, name in enumerate(prompt.request_id) if name in first], np.intp)
    number = np.array([int(prompt.request_id[i].rsplit(":", 1)[1]) for i in both.tolist()], np.intp)
    own = np.array([first[prompt.request_id[i]] for i in both.tolist()], np.intp)
    return _taken(prompt, both), _taken(decoded, own), extra["prompt_logprob"][number]


def _taken(table: SegmentTable, rows: Rows) -> SegmentTable:
    # Any: lists of text and arrays.
    columns: dict[str, Any] = {name: _some(getattr(table, name), rows) for name in _columns()}
    return SegmentTable(table.schema, **columns)


def _joined(tables: list[SegmentTable]) -> SegmentTable:
    columns = {name: [getattr(table, name) for table in tables] for name in _columns()}
    # Any: lists of text and arrays.
    whole: dict[str, Any] = {
        name: list(chain(*parts)) if isinstance(parts[0], list) else np.concatenate(parts)
        for name, parts in columns.items()
    }
    return SegmentTable(tables[0].schema, **whole)


def _columns() -> list[str]:
    return [field.name for field in fields(SegmentTable) if field.name != "schema"]


# Any: a list of text or an array.
def _some(column: Any, rows: Rows) -> Any:
    return [column[row] for row in rows.tolist()] if isinstance(column, list) else column[rows]
