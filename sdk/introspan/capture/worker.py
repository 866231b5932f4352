"""A worker whose model was just loaded in; a recorder that follows its runner out.

The only place where the parts of capture are put together.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

import torch

from introspan import __version__
from introspan.admission import Admission, SharedAdmission
from introspan.capture.assembly import assemble
from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import Anatomy, describe, survey
from introspan.capture.model.checkpoint import fingerprint_of
from introspan.capture.model.loaded import loaded_fingerprint, unread_fingerprint
from introspan.capture.model.ranks import Ranks, changed_fingerprint, ranks_of
from introspan.capture.model.weights import Source, Weights
from introspan.capture.requests.engine_stamp import EngineClock
from introspan.capture.requests.identity import Identity
from introspan.capture.requests.reprefill_limit import limit, offer
from introspan.capture.requests.reprefill_mark import shared_key
from introspan.capture.rows import BURST
from introspan.capture.runner.choice import follow as follow_runner
from introspan.capture.runner.choice import refusal
from introspan.capture.step.recorder import Recorder
from introspan.capture.step.sinks import Sinks
from introspan.capture.tapped import Engine
from introspan.config import Settings
from introspan.observation import Disabled, Resource
from introspan.patches import Patches

_log = logging.getLogger("introspan")


@dataclass(frozen=True, slots=True)
class Depths:
    """Which layers of a model are measured for what."""

    residual: tuple[int, ...]
    projection: tuple[int, ...]
    attention: tuple[int, ...]


def choose(settings: Settings, anatomy: Anatomy) -> Depths:
    """The layers to measure, as far as the model offers them. Raises SettingsError for a layer it lacks."""
    count = anatomy.layer_count
    residual = tuple(
        layer
        for layer in settings.layers.resolve(count)
        if anatomy.owns(layer) and layer + 1 in anatomy.streams
    )
    # Every layer where every layer is asked for; else the two that drift detection looks at.
    wanted = residual if settings.layers.wanted == "all" else tuple(sorted({count // 2, max(count - 2, 0)}))
    projection = tuple(layer for layer in wanted if anatomy.owns(layer)) if settings.projections else ()
    attention = tuple(
        layer for layer in settings.attention_layers.resolve(count) if layer in anatomy.attention
    )
    return Depths(residual, projection, attention)


# Any throughout: vLLM's worker and configuration; `pipeline` is introspan.pipeline.Pipeline, which no stage imports.
def follow(worker: Any, config: Any, settings: Settings, pipeline: Callable[..., Any]) -> None:
    """Measures this worker's model from now on, or says why not, in the log and to the collector."""
    runner, health, ranks = worker.model_runner, Health(), ranks_of(config.parallel_config)
    engine = EngineClock() if ranks.are_several else None
    admission = _admission(settings, engine)
    capacity = 2 * config.scheduler_config.max_num_seqs
    anatomy, depths = _look(runner, config, settings, ranks, health)
    heads = ranks.heads(int(config.model_config.hf_text_config.num_attention_heads))
    layout = lay_out(
        depths.residual, depths.projection, depths.attention, heads, with_output=ranks.measure_output
    )
    opened = pipeline(
        settings,
        _resource(config, settings, ranks),
        layout.columns,
        capacity,
        admission,
        lambda: health.status(admission.probability),
        lambda: health.refuse(Disabled("capture", "remote_brake", "the collector switched capture off")),
    )
    if settings.reprefill_rate:
        offer(worker, lambda: limit(settings.reprefill_rate, settings.request_rate, admission, health))
    if not health.is_on("capture") or not layout.columns:
        return
    sinks = Sinks(opened.rows, opened.canaries, opened.finished)
    with _told(health):
        of_model = Engine(runner, config, ranks, health, sinks)
        made = assemble(of_model, settings, anatomy, layout, capacity)
        recorder = made.recorder
        if made.warm_up is not None:
            Patches().replace(worker, "compile_or_warm_up_model", _warming(made.warm_up, health))
        weights = Weights(health, recorder.leave, _renaming(runner, config, opened, ranks))
        weights.follow(worker, runner)
        identity = _identity(settings, admission, health, engine)
        identify, alternate = weights.measured(identity.of), ranks.batches_alternate
        follow_runner(
            runner, config, recorder, health, identify, batches_alternate=alternate, ladder=made.ladder
        )
        # Before the exporter's own, whose priority is 100: what waits here becomes observations there.
        Finalize(None, _close, (recorder, opened), exitpriority=110)
    for line in describe(anatomy):
        _log.info("introspan: %s", line)
    _log.info("introspan: exporting %d values a row to %s", len(layout.columns), settings.endpoint)


def _admission(settings: Settings, engine: EngineClock | None) -> Admission:
    if engine is None:
        return Admission(settings.request_rate, settings.row_budget)
    stride = settings.token_stride
    single = (lambda tokens: tokens * min(BURST, stride) // stride) if settings.single_tokens else None
    return SharedAdmission(settings.request_rate, settings.row_budget, engine.seconds, single)


def _identity(
    settings: Settings, admission: Admission, health: Health, engine: EngineClock | None
) -> Identity:
    return Identity(
        settings.salt or (os.urandom(16) if engine is None else b""),
        admission,
        settings.canary_key,
        time.time if engine is None else engine.unix_seconds,
        reprefill_key=shared_key() if settings.reprefill_rate else b"",
        drops=health.dropped_requests,
        engine=engine,
    )


def _look(
    runner: Any, config: Any, settings: Settings, ranks: Ranks, health: Health
) -> tuple[Anatomy, Depths]:
    """What the model offers and what of it this worker measures; nothing where that cannot be found out."""
    nothing = Anatomy(0, {}, {}, ()), Depths((), (), ())
    try:
        why = refusal(runner, config)
        if why is not None:
            health.refuse(Disabled("capture", "unsupported_engine", why))
            return nothing
        anatomy = ranks.share(survey(runner.model, config.model_config.hf_text_config.num_hidden_layers))
        depths = choose(settings, anatomy)
    except Exception as error:  # noqa: BLE001 - told to the collector, which has to be opened first
        _log.warning("introspan: engine or model could not be looked at", exc_info=True)
        health.refuse(Disabled("capture", "attach_failed", f"{type(error).__name__}: {error}"))
        return nothing
    for entry in anatomy.refused:
        health.refuse(entry)
    return anatomy, depths


@contextmanager
def _told(health: Health) -> Iterator[None]:
    """Tells the collector that attaching failed before the error goes on to the log."""
    try:
        yield
    except Exception as error:
        health.refuse(Disabled("capture", "attach_failed", f"{type(error).__name__}: {error}"))
        raise


def _renaming(runner: Any, config: Any, opened: Any, ranks: Ranks) -> Callable[[Source], None]:
    """What is done after weights have changed: the fingerprint is taken again, for what is measured from now on."""
    changes = 0

    def rename(source: Source) -> None:
        nonlocal changes
        began = time.monotonic()
        changes += 1
        if source is Source.FILES:
            name = fingerprint_of(config.model_config, config.load_config.download_dir)
        elif ranks.are_several:
            name = changed_fingerprint(config.instance_id, changes)
        elif source is Source.UNANNOUNCED:
            name = unread_fingerprint()
        else:
            name = loaded_fingerprint(runner.get_model())
        opened.model_changed(name)
        took = time.monotonic() - began
        _log.info(
            "introspan: weights were changed; the model is now %s, which took %.2f s to tell", name, took
        )

    return rename


def _warming(warm_up: Callable[[], None], health: Health) -> Callable[[Any], Callable[..., Any]]:
    """When the engine has warmed itself up we do: nobody waits for a kernel of ours to be compiled."""

    def around(original: Any) -> Callable[..., Any]:
        def compile_or_warm_up_model(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            try:
                with torch.inference_mode():
                    warm_up()
            except Exception as error:  # noqa: BLE001 - the edge of the host
                health.error("capture", error)
            return result

        return compile_or_warm_up_model

    return around


def _close(recorder: Recorder, opened: Any) -> None:
    """At the end of the process: what waits is computed and sent."""
    try:
        # Rows that wait were made in this mode, and may only be written to in it.
        with torch.inference_mode():
            recorder.close()
        opened.close()
    except Exception:  # noqa: BLE001 - the edge of the host, which is ending
        _log.warning("introspan: the last rows were lost", exc_info=True)


def _resource(config: Any, settings: Settings, ranks: Ranks) -> Resource:
    import vllm  # noqa: PLC0415 - its own version attribute; the distribution has several names

    model = config.model_config
    names = model.served_model_name
    replica = settings.replica or socket.gethostname()
    return Resource(
        service_name=settings.service_name,
        replica=f"{replica}-dp{ranks.data}" if ranks.data_count > 1 else replica,
        model_name=names[0] if isinstance(names, list) else str(names),
        model_fingerprint=fingerprint_of(model, config.load_config.download_dir),
        engine_name="vllm",
        engine_version=vllm.__version__,
        dtype=str(model.dtype).removeprefix("torch."),
        layer_count=int(model.hf_text_config.num_hidden_layers),
        head_count=int(model.hf_text_config.num_attention_heads),
        sdk_version=__version__,
        tensor_parallel_rank=ranks.tensor,
        pipeline_parallel_rank=ranks.pipeline,
        data_parallel_rank=ranks.data,
        tensor_parallel_size=ranks.tensor_count,
        pipeline_parallel_size=ranks.pipeline_count,
        attributes=dict(settings.resource_attributes),
    )
