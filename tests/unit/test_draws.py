"""What the sampler's evidence makes of the counts of producers."""

from dataclasses import replace

import numpy as np
import pytest

from introspan.observation import Drawn
from introspan_collector.detect.live import draws
from introspan_collector.detect.live.draws import Draws, log_growth
from tests.batches import Traffic, status


def message(drawn, producer=b"p" * 16, sequence=2):
    batch = Traffic().batch(1, 1_800_000_000.0)
    return replace(batch, producer=producer, sequence=sequence, status=status(drawn))


def test_tokens_are_counted_with_those_in_the_tails_and_what_was_not_measured_left_out():
    u = np.array([0.01, np.nan, 0.5, 0.97, 1.0], np.float32)
    found = Drawn(10, 1, 0, 5.0).plus(u)
    assert found == Drawn(14, 2, 2, pytest.approx(7.48))


def test_evidence_is_what_was_drawn_since_the_message_before():
    seen = Draws()
    assert seen.growth(message(Drawn(100, 9, 1, 40.0))) is None
    found = seen.growth(message(Drawn(140, 12, 3, 61.0)))
    assert found.log == pytest.approx(log_growth(40, 3, 2, 21.0))
    assert [(stream.adapter, stream.side) for stream in found.streams] == [
        ("", "low"), ("", "high"), ("", "up"), ("", "down"),
    ]  # fmt: skip
    assert seen.growth(message(Drawn(140, 12, 3, 61.0))) is None


def test_a_producers_very_first_message_counts_whole():
    assert Draws().growth(message(Drawn(40, 3, 2, 21.0), sequence=1)).log == pytest.approx(
        log_growth(40, 3, 2, 21.0)
    )


def test_producers_are_counted_apart():
    seen = Draws()
    seen.growth(message(Drawn(100, 9, 1, 40.0)))
    assert seen.growth(message(Drawn(140, 12, 3, 61.0), producer=b"q" * 16)) is None
    assert seen.growth(message(Drawn(141, 9, 1, 40.5))) is not None


@pytest.mark.parametrize("later", [Drawn(90, 9, 1, 40.0), Drawn(140, 8, 1, 60.0), Drawn(140, 9, 1, 39.0)])
def test_counts_that_fall_are_no_evidence(later):
    seen = Draws()
    seen.growth(message(Drawn(100, 9, 1, 40.0)))
    assert seen.growth(message(later)) is None


def test_a_producer_that_was_forgotten_does_not_count_twice(monkeypatch):
    monkeypatch.setattr(draws, "MOST_PRODUCERS", 2)
    seen = Draws()
    for producer in (b"p" * 16, b"q" * 16, b"r" * 16):
        seen.growth(message(Drawn(100, 9, 1, 40.0), producer))
    assert seen.growth(message(Drawn(140, 12, 3, 61.0))) is None


def test_counts_survive_a_restart():
    seen, again = Draws(), Draws()
    for producer in (b"p" * 16, b"\0" * 16):
        seen.growth(message(Drawn(100, 9, 1, 40.0), producer))
    again.restore(seen.snapshot())
    assert again.snapshot() == seen.snapshot()
    for producer in (b"p" * 16, b"\0" * 16):
        assert again.growth(message(Drawn(140, 12, 3, 61.0), producer)).log == pytest.approx(
            log_growth(40, 3, 2, 21.0)
        )
    again.restore(Draws().snapshot())
    assert again.growth(message(Drawn(150, 12, 3, 66.0))) is None
