"""An engine of several workers in; what each of them measured, row by row, as a file of its own, out.

It is exported to the collector as well, as without this: the pipeline is the product's, with a copy kept.
"""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from introspan import plugin
from introspan.observation import Request, Rows
from introspan.pipeline import Pipeline

FOLDER = "RANKED_FOLDER"
"""Environment variable: where the files go."""


class Kept(Pipeline):
    """Keeps what it sends, and writes it when the worker ends."""

    # Any: as the product's own.
    def __init__(self, settings: Any, resource: Any, columns: Any, *args: Any) -> None:
        super().__init__(settings, resource, columns, *args)
        self._resource, self._columns, self._status = resource, columns, args[2]
        self._kept: list[Rows] = []
        self._ended: dict[str, int] = {}

    def rows(self, rows: Rows) -> None:
        self._kept.append(rows)
        super().rows(rows)

    def finished(self, request: Request, last_position: int) -> None:
        self._ended[request.request_id] = last_position
        super().finished(request, last_position)

    def close(self) -> None:
        super().close()
        who = self._resource
        path = Path(os.environ[FOLDER]) / f"{who.pipeline_parallel_rank}-{who.tensor_parallel_rank}.npz"
        kept = self._kept
        meta = {
            "resource": asdict(who),
            "columns": self._columns,
            "status": asdict(self._status()),
            "ended": self._ended,
            "compiled_models": _compiled_models(),
            "ids": [request.request_id for rows in kept for request in rows.requests],
            "clusters": {r.request_id: f"{r.cluster_key:x}" for rows in kept for r in rows.requests},
        }
        width = len(self._columns)
        with path.with_suffix(".unfinished").open("wb") as file:
            np.savez(
                file,
                meta=json.dumps(meta),
                positions=np.concatenate([np.zeros(0, np.int64), *(rows.position for rows in kept)]),
                values=np.concatenate([np.zeros((0, width), np.float32), *(rows.values for rows in kept)]),
            )
        path.with_suffix(".unfinished").rename(path)


def _compiled_models() -> int:
    from vllm.compilation.counter import compilation_counter

    return compilation_counter.num_models_seen


def prepare() -> None:
    """Before an engine starts: its workers keep what they send, and are forked, as they are elsewhere than on a CPU.

    Those that answer nobody come last to what they are told, as they may where cores are fewer than workers.
    """
    from vllm.platforms.cpu import CpuPlatform

    plugin.register(Kept)
    configure = CpuPlatform.check_and_update_config

    def check_and_update_config(_: type, config: Any) -> None:  # Any: vLLM's
        configure(config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)
    make_room_for_what_is_handed_on()
    _wake_late()


def make_room_for_what_is_handed_on() -> None:
    """Does what vLLM 0.32 leaves to its warm-up, which it skips on a CPU in eager mode.

    There a second pipeline stage ends at its first step: `assert self.intermediate_tensors is not None`.
    """
    from vllm.distributed import get_pp_group
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    load = CPUModelRunner.load_model

    def load_model(runner: Any, *args: Any, **kwargs: Any) -> None:  # Any: vLLM's
        load(runner, *args, **kwargs)
        if not get_pp_group().is_first_rank:
            runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
                batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
            )

    CPUModelRunner.load_model = load_model


def _wake_late() -> None:
    """Lets workers whose tokens are not asked for sleep before they hear that the last ones are to be drawn.

    vLLM's queues forget what was not read when the engine ends, which waits for the worker that answers alone.
    """
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    execute, wait = GPUModelRunner.execute_model, SpinCondition.wait
    is_last: list[bool] = []

    # Any: vLLM's.
    def execute_model(runner: Any, scheduled: Any, *args: Any, **kwargs: Any) -> Any:
        result = execute(runner, scheduled, *args, **kwargs)
        parallel = runner.parallel_config
        answers = parallel.rank == parallel.world_size - parallel.tensor_parallel_size
        if scheduled.scheduled_cached_reqs.req_ids == ["last"] and not answers:
            is_last.append(True)
        return result

    def late(*args: Any, **kwargs: Any) -> Any:
        result = wait(*args, **kwargs)
        if is_last:
            is_last.pop()
            time.sleep(0.5)
        return result

    GPUModelRunner.execute_model, SpinCondition.wait = execute_model, late


def read(folder: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """What workers have written, by pipeline stage and tensor-parallel rank."""
    found = {}
    for path in folder.glob("*.npz"):
        stage, rank = map(int, path.stem.split("-"))
        with np.load(path, allow_pickle=False) as loaded:
            found[stage, rank] = json.loads(str(loaded["meta"])) | {
                "positions": loaded["positions"],
                "values": loaded["values"],
            }
    return found
