"""Claims on whose weights a batch says it was measured on, once weights change under the exporter."""

import time
from functools import partial

import numpy as np

from introspan.admission import Admission
from introspan.config import load
from introspan.export.exporter import Exporter
from introspan.observation import CaptureStatus, Request, RowColumn, Rows
from introspan.pipeline import Pipeline
from introspan_wire.codec import decode_table
from tests.integration.exporting import RESOURCE, exporting, until
from tests.integration.scripted_collector import ScriptedCollector

OLD, NEW, NEWER = RESOURCE.model_fingerprint, "loaded-" + "b" * 64, "c" * 64


def sent(collector):
    """Request ids by the fingerprint of the batch they came in, in order of arrival."""
    return [
        (request.resource.model_fingerprint, list(decode_table(table).request_id))
        for request in collector.requests
        for table in request.tables
    ]


def request(name: str) -> Request:
    return Request(name, name, bytes(16), bytes(8), 1, "", 4, 0, 1.0, 7)


def row(name: str, position: int) -> Rows:
    value = np.full((1, 1), 0.5, np.float32)
    return Rows([request(name)], np.array([position], np.int64), value, np.zeros(1, np.bool_))


def test_observations_keep_the_name_of_their_weights_however_long_they_wait():
    with ScriptedCollector() as collector:
        settings = load({"INTROSPAN_ENDPOINT": f"127.0.0.1:{collector.port}"})
        columns = (RowColumn("residual.log_rms", 0),)
        pipeline = Pipeline(settings, RESOURCE, columns, 4, Admission(1.0, 1e9), CaptureStatus, lambda: None)
        try:
            # All within one tick of the exporter: they wait side by side.
            pipeline.rows(row("a", 3))
            pipeline.rows(row("a", 4))
            pipeline.finished(request("a"), 4)
            pipeline.model_changed(NEW)
            pipeline.rows(row("b", 3))
            pipeline.model_changed(NEWER)
            pipeline.model_changed(OLD)
            pipeline.rows(row("c", 3))
            until(lambda: sum(len(ids) for _, ids in sent(collector)) == 4)
        finally:
            pipeline.close()
        assert sent(collector) == [(OLD, ["a"]), (OLD, ["a"]), (NEW, ["b"]), (OLD, ["c"])]
        sequences = [one.sequence for one in collector.requests]
        assert sequences == sorted(set(sequences))


def test_a_row_at_which_something_begins_is_sent_at_once_with_all_that_waits():
    with ScriptedCollector() as collector:
        settings = load({"INTROSPAN_ENDPOINT": f"127.0.0.1:{collector.port}"})
        columns = (RowColumn("residual.nonfinite", 0),)
        unhurried = partial(Exporter, tick_seconds=600.0)
        pipeline = Pipeline(
            settings,
            RESOURCE,
            columns,
            4,
            Admission(1.0, 1e9),
            CaptureStatus,
            lambda: None,
            exporter=unhurried,
        )
        try:
            pipeline.rows(row("a", 3))
            pipeline.rows(row("a", 4))
            time.sleep(0.3)
            assert sent(collector) == []
            begins = row("b", 4)
            pipeline.rows(Rows(begins.requests, begins.position, begins.values, np.ones(1, np.bool_)))
            until(lambda: sum(len(ids) for _, ids in sent(collector)) == 2)
        finally:
            pipeline.close()


def test_a_status_alone_is_of_the_weights_that_are_there_now():
    ahead_seconds = [0.0]
    with (
        ScriptedCollector() as collector,
        exporting(collector.port, clock=lambda: time.monotonic() + ahead_seconds[0]) as exporter,
    ):
        exporter.start()
        until(lambda: len(collector.received) == 1)
        exporter.model_changed(NEW)
        ahead_seconds[0] += 10
        until(lambda: len(collector.received) == 2)
        assert [one.resource.model_fingerprint for one in collector.requests] == [OLD, NEW]
