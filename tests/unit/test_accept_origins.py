"""What is remembered of resources: those in use, up to so many bytes."""

import pytest

from introspan_collector.accept.origins import Origins
from introspan_collector.model import Origin
from introspan_wire.codec import FrameError

MIB = 2**20


class Decoding:
    """Decodes a resource that is only a replica's name, and says which ones it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, data):
        self.asked.append(data)
        if data == b"wrong":
            raise FrameError("resource.replica", "is wrong")
        return Origin("vllm", "m", data.decode(), "f00d", "vllm", "0.32.0", "float32", 30, 9, "0.1.0")


def test_a_resource_is_decoded_once_while_it_is_remembered():
    decoding = Decoding()
    origins = Origins(decoding, MIB)
    assert [origins.of(name).replica for name in (b"a", b"b", b"a")] == ["a", "b", "a"]
    assert origins.of(b"a") is origins.of(b"a")
    assert decoding.asked == [b"a", b"b"]


def test_resources_of_any_length_take_no_more_memory_than_they_may():
    origins = Origins(Decoding(), MIB)
    for number in range(100):
        origins.of(f"{number}".encode() * 100_000)
        assert origins.bytes <= MIB
    assert 1 <= len(origins) <= 5
    for number in range(10_000):
        origins.of(f"{number}".encode())
    assert origins.bytes <= MIB
    assert len(origins) > 900, "short ones take little"


def test_the_one_that_was_not_asked_for_longest_is_forgotten_first():
    decoding = Decoding()
    origins = Origins(decoding, MIB)
    busy, idle = b"busy" * 20_000, b"idle" * 20_000
    origins.of(idle)
    for number in range(20):
        origins.of(busy)
        origins.of(f"{number:04}".encode() * 20_000)
    origins.of(idle)
    assert (decoding.asked.count(busy), decoding.asked.count(idle)) == (1, 2)


def test_one_that_is_refused_is_not_remembered():
    decoding = Decoding()
    origins = Origins(decoding, MIB)
    for _ in range(2):
        with pytest.raises(FrameError):
            origins.of(b"wrong")
    assert (len(decoding.asked), len(origins), origins.bytes) == (2, 0, 0)
