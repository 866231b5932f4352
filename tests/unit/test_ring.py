"""The ring of results over a device that is slow: nothing waits, nothing is handed on too soon or twice."""

import pytest
import torch

from introspan.capture.step.ring import ResultsRing

CPU = torch.device("cpu")


class Device:
    """A device that has done as many copies as it is told; marks are set behind those begun so far."""

    def __init__(self) -> None:
        self.begun = 0
        self.done = 0
        self.asked = 0

    def event(self) -> "Mark":
        return Mark(self)


class Mark:
    def __init__(self, device: Device) -> None:
        self._device = device
        self._at = 0

    def record(self) -> None:
        self._device.begun += 1
        self._at = self._device.begun

    def query(self) -> bool:
        self._device.asked += 1
        return self._device.done >= self._at

    def synchronize(self) -> None:
        self._device.done = max(self._device.done, self._at)


def _ring(places: int = 3) -> tuple[ResultsRing[str], Device]:
    device = Device()
    return ResultsRing(places, 4, CPU, device.event), device


def _taken(ring: ResultsRing[str]) -> list[tuple[str, list[float]]]:
    return [(tag, result.tolist()) for tag, result in ring.take()]


def test_a_result_is_handed_on_once_the_device_has_copied_it_and_not_before():
    ring, device = _ring()
    ring.put("a", torch.tensor([1.0, 2.0]))
    assert _taken(ring) == []
    device.done = 1
    assert _taken(ring) == [("a", [1.0, 2.0])]
    assert _taken(ring) == []


def test_results_come_in_the_order_in_which_they_were_put():
    ring, device = _ring()
    for tag in "abc":
        ring.put(tag, torch.zeros(1))
    device.done = 2
    assert [tag for tag, _ in ring.take()] == ["a", "b"]
    device.done = 3
    assert [tag for tag, _ in ring.take()] == ["c"]


def test_a_full_ring_drops_the_oldest_and_says_which():
    ring, device = _ring(places=2)
    assert [ring.put(tag, torch.tensor([float(n)])) for n, tag in enumerate("abcd")] == [None, None, "a", "b"]
    assert len(ring) == 2
    device.done = 3  # those dropped and c, not d
    assert _taken(ring) == [("c", [2.0])]


def test_whoever_waits_has_all_that_is_under_way():
    ring, _ = _ring()
    for tag in "abc":
        ring.put(tag, torch.zeros(1))
    assert [tag for tag, _ in ring.take(wait=True)] == ["a", "b", "c"]


def test_what_is_forgotten_never_comes_and_leaves_its_places():
    ring, device = _ring(places=2)
    for tag in "ab":
        ring.put(tag, torch.zeros(1))
    assert ring.clear() == ["a", "b"]
    device.done = 2
    assert ring.take() == []
    assert [ring.put(tag, torch.zeros(1)) for tag in "cd"] == [None, None]


def test_what_was_handed_on_is_not_written_over():
    ring, device = _ring(places=1)
    ring.put("a", torch.tensor([1.0]))
    device.done = 1
    ((_, first),) = ring.take()
    ring.put("b", torch.tensor([2.0]))
    assert first.tolist() == [1.0]


def test_nothing_is_asked_of_the_device_where_nothing_is_under_way():
    ring, device = _ring()
    assert ring.take() == []
    assert device.asked == 0


def test_results_keep_their_shape_and_become_float32():
    ring, device = _ring()
    ring.put("a", torch.tensor([[1, 2], [3, 4]], dtype=torch.bfloat16).t())
    device.done = 1
    ((_, result),) = ring.take()
    assert result.dtype == torch.float32
    assert result.tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_on_a_cpu_results_are_there_at_once():
    ring: ResultsRing[int] = ResultsRing(2, 4, CPU)
    ring.put(7, torch.tensor([1.0]))
    assert [(tag, result.tolist()) for tag, result in ring.take()] == [(7, [1.0])]


def test_a_result_too_large_and_a_ring_without_places_are_refused_by_number():
    ring, _ = _ring()
    with pytest.raises(ValueError, match="a result of 5 numbers does not fit a place of 4"):
        ring.put("a", torch.zeros(5))
    with pytest.raises(ValueError, match="places must be >= 1, got 0"):
        ResultsRing(0, 4, CPU)
