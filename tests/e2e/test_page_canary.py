"""The view of canaries in a real Chromium: rounds of a model of which one layer is damaged in the end."""

import numpy as np
import pytest

from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.archive.archive import Archive
from introspan_collector.detect.detector import Detector
from introspan_collector.detect.report import Report
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.expose.app import build
from introspan_collector.serving import HttpThread
from tests.browser import browsing, draw_all
from tests.canary_rounds import LAYERS, Fault, Model, output_batch, state_batch
from tests.exposed import watched_sources

pytestmark = pytest.mark.xdist_group("page")

ROUNDS = 8
DAMAGED = 5


class Asked:
    """A detector that hears a round every ten seconds."""

    def __init__(self):
        self.now = 1_800_000_000.0
        self.detector = Detector(DetectSettings(canary_rounds=ROUNDS), clock=lambda: self.now)
        self.report = Report(self.detector, lambda: self.now)
        self._rng, self._number, self._model = np.random.default_rng(3), 0, Model()

    def hear(self, count, **how):
        for _ in range(count):
            self._number += 1
            for answer in self._model.round(self._rng, self._number, **how).values():
                self.detector.consume(output_batch(answer, self.now))
                self.detector.consume(state_batch(answer, self.now))
            self.detector.advance()
            self.now += 10
        return self


def test_a_damaged_layer_is_where_the_canarys_picture_begins_to_be_bright(tmp_path):
    asked = Asked().hear(ROUNDS + 1)
    sources = watched_sources(
        Aggregator(), Archive(tmp_path), lambda: None, lambda: True, detection=asked.report,
        endpoints=[{"url": "http://vllm:8000", "model": "m", "ranks": 1, "answered": 9, "failed": 1,
                    "error": "<timed out>", "asked_seconds_ago": 4.0}],
    )  # fmt: skip
    http = HttpThread(build(sources), "127.0.0.1:0")
    http.start()
    try:
        with browsing() as browser:
            page, problems = browser.open(f"http://127.0.0.1:{http.port}/canary")
            draw_all(page)
            assert "as its baseline" in page.locator("main").inner_text()
            assert "<timed out>" in page.locator("#asked").inner_text()
            asked.hear(2, fault=Fault(DAMAGED, 0.0))
            page.locator(".state.deviating").first.wait_for()
            (one,) = asked.report.canaries()
            (found,) = one["replicas"]
            assert found["place"] in page.locator("#canary-1").inner_text()
            page.reload()
            draw_all(page)
            page.locator(".chart > canvas").focus()
            page.keyboard.press("Home")
            readings = []
            for _ in range(LAYERS + 1):
                readings.append(page.locator(".reading").inner_text())
                page.keyboard.press("ArrowRight")
            bright = [float(text.split(": ")[1].split(" ")[0]) > 10 for text in readings]
            assert bright == [number > DAMAGED for number in range(LAYERS + 1)], readings
            assert problems == []
    finally:
        http.stop()
