"""A loaded model runner and the engine's configuration in; the adapter and the recorder that follow it out.

Which kind a runner is it says itself: its methods are what an adapter wraps, and the version's name says less.
"""

from collections.abc import Callable, Iterator
from typing import Any

from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.rows import Table
from introspan.capture.runner import v1_runner, v2_runner
from introspan.capture.runner.graph_modes import GraphModes
from introspan.capture.runner.ladder import Ladder
from introspan.capture.runner.late_v1_runner import LateV1Runner
from introspan.capture.runner.v1_runner import V1Runner
from introspan.capture.runner.v2_runner import V2Runner
from introspan.capture.step.late_recorder import LateRecorder
from introspan.capture.step.probes import Probes
from introspan.capture.step.recorder import Recorder
from introspan.capture.step.sinks import Sinks
from introspan.observation import Disabled, Request

_V2_ALONE = ("add_requests", "req_states")


# Any throughout: vLLM's runner and configuration.
def is_v2(runner: Any) -> bool:
    """Whether a runner is of the second kind; one of neither kind is refused as one of the first."""
    return all(hasattr(runner, name) for name in _V2_ALONE)


def refusal(runner: Any, vllm_config: Any) -> str | None:
    """Why this runner cannot be followed, or None where it can."""
    if is_v2(runner):
        return v2_runner.refusal(runner, vllm_config)
    return v1_runner.refusal(runner, vllm_config)


def limits(runner: Any, vllm_config: Any) -> Iterator[Disabled]:
    """What of an engine that is followed is not measured, and why."""
    if is_v2(runner):
        return v2_runner.limits(runner, vllm_config)
    return v1_runner.limits(runner, vllm_config)


def recorder_of(
    runner: Any,
    vllm_config: Any,
    layout: Layout,
    table: Table,
    capacity: int,
    probes: Probes,
    health: Health,
    sinks: Sinks,
    rows_max: int,
) -> Recorder:
    """A recorder that takes tokens when they come: with their step, or steps later. capacity: requests at once."""
    if not _tokens_are_late(runner, vllm_config):
        return Recorder(layout, table, probes, health, sinks, rows_max)
    depth = steps_under_way(vllm_config)
    return LateRecorder(layout, table, probes, health, sinks, rows_max, capacity, depth)


def ladder_of(
    runner: Any,
    vllm_config: Any,
    health: Health,
    signals: tuple[str, ...],
    is_wanted: Callable[[], bool] = lambda: True,
) -> Ladder:
    """Where an engine goes when taps do not fire in its graphs: for the recorder, and for `follow`."""
    return Ladder(GraphModes(runner, vllm_config, health).refusal, health, signals, is_wanted)


def follow(
    runner: Any,
    vllm_config: Any,
    recorder: Recorder,
    health: Health,
    identify: Callable[[Any], Request | None],
    *,
    batches_alternate: bool,
    ladder: Ladder | None = None,
) -> None:
    """Follows a runner from now on. batches_alternate: steps of other requests come between those of a request.

    ladder: of a device whose forwards are replayed; None: steps run as the engine has them.
    """
    if ladder is not None:
        GraphModes(runner, vllm_config, health).follow(ladder)
    if not isinstance(recorder, LateRecorder):
        V1Runner(runner, recorder, health, identify, batches_alternate=batches_alternate)
    elif is_v2(runner):
        V2Runner(
            runner,
            recorder,
            health,
            identify,
            batches_alternate=batches_alternate,
            prompts_only=vllm_config.speculative_config is not None,
        )
    else:
        LateV1Runner(runner, recorder, health, identify, batches_alternate=batches_alternate)


def _tokens_are_late(runner: Any, vllm_config: Any) -> bool:
    return is_v2(runner) or bool(vllm_config.scheduler_config.async_scheduling)


def steps_under_way(vllm_config: Any) -> int:
    """How many steps the engine has handed over at most before it looks at the tokens of the first of them."""
    known = getattr(vllm_config, "max_concurrent_batches", None)
    if known is not None:
        return int(known)
    stages = int(vllm_config.parallel_config.pipeline_parallel_size)
    return stages + 1 if vllm_config.scheduler_config.async_scheduling else stages
