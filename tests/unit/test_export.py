"""Claims on the parts of the exporter that need no server: backlog, frames, back-off, replies, deliveries."""

import random
from threading import Event

import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from introspan.export.backlog import OBJECT_BYTES, Backlog
from introspan.export.backoff import Backoff
from introspan.export.delivery import Delivery
from introspan.export.envelope import encode_resource, encode_status
from introspan.export.frame import Framer, tables
from introspan.export.reply import Failure, Reply, parse_reply, parse_retry_seconds
from introspan.observation import CaptureStatus, Disabled, Drawn, Observation, Resource
from introspan_wire.codec import Column, Schema, encode_table
from introspan_wire.signals import Kind, Statistic
from introspan_wire.v1 import observation_service_pb2 as service_pb

PROMPT = Schema(Kind.PROMPT, (Column("output.entropy", Statistic.LAST),))
DECODED = Schema(
    Kind.DECODED, (Column("output.entropy", Statistic.MEAN), Column("output.margin", Statistic.MEAN))
)
RESOURCE = Resource(
    "chat", "r0", "tiny", "f" * 64, "vllm", "0.32.0", "float32", 50, 9, "0.1.0", 1, 2, 3, {"team": "a"}
)


def observation(name: str, schema: Schema = PROMPT, segment: int = 0) -> Observation:
    values = np.zeros(len(schema.columns), np.float32)
    return Observation(schema, name, bytes(16), bytes(8), 1, "", segment, 0, 1, 1, 1, 0, 1, 1.0, values)


SIZE = observation("x").values.nbytes + OBJECT_BYTES


def test_a_backlog_gives_back_what_was_put_in_order():
    backlog = Backlog(10 * SIZE)
    for name in "abc":
        backlog.put(observation(name))
    taken = [backlog.take() for _ in range(4)]
    assert [one and one.request_id for one in taken] == ["a", "b", "c", None]


def test_a_full_backlog_drops_the_oldest_and_counts_it():
    backlog = Backlog(3 * SIZE)
    waiting = [backlog.put(observation(name)) for name in "abcde"]
    assert waiting == [SIZE, 2 * SIZE, 3 * SIZE, 3 * SIZE, 3 * SIZE]
    assert backlog.evicted == 2
    taken = [backlog.take() for _ in range(4)]
    assert [one and one.request_id for one in taken] == ["c", "d", "e", None]


def test_taking_makes_room():
    backlog = Backlog(2 * SIZE)
    for name in "abcdef":
        backlog.put(observation(name))
        assert backlog.take() is not None
    assert backlog.evicted == 0


def test_the_oldest_is_looked_at_and_stays_until_it_is_taken():
    backlog = Backlog(10 * SIZE)
    assert backlog.oldest() is None
    for name in "ab":
        backlog.put(observation(name))
    assert [backlog.oldest().request_id, backlog.take().request_id, backlog.oldest().request_id] == [
        "a",
        "a",
        "b",
    ]


def test_an_observation_larger_than_the_backlog_is_itself_dropped():
    backlog = Backlog(SIZE - 1)
    backlog.put(observation("a"))
    assert (backlog.take(), backlog.evicted) == (None, 1)


def test_the_object_size_covers_what_an_observation_takes():
    import tracemalloc

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [observation(f"chatcmpl-{i:032d}-{i:08d}") for i in range(1_000)]
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken / len(kept) <= SIZE


def test_tables_hold_one_schema_each_prompts_first_requests_in_order():
    rows = [
        observation("a", DECODED, 1),
        observation("b"),
        observation("b", DECODED, 1),
        observation("a", DECODED, 2),
    ]
    prompt, decoded = tables(rows)
    assert (prompt.schema, list(prompt.request_id)) == (PROMPT, ["b"])
    assert list(zip(decoded.request_id, decoded.segment_index.tolist(), strict=True)) == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
    ]


def test_frames_are_numbered_from_one_and_carry_resource_producer_and_status():
    framer = Framer(RESOURCE, b"p" * 16)
    status = encode_status(CaptureStatus(measured_rows=5), {})
    messages = [
        service_pb.ExportObservationsRequest.FromString(framer.frame(rows, status).data)
        for rows in ([observation("a")], [])
    ]
    assert [message.sequence for message in messages] == [1, 2]
    assert messages[0].tables[0] == encode_table(tables([observation("a")])[0])
    assert not messages[1].tables
    for message in messages:
        assert message.producer_id == b"p" * 16
        assert message.resource == encode_resource(RESOURCE)
        assert message.status.measured_rows == 5


def test_every_field_of_resource_and_status_reaches_the_message():
    resource = encode_resource(RESOURCE)
    assert len(resource.ListFields()) == len(resource.DESCRIPTOR.fields)
    disabled = (Disabled("attention", "self_check_failed", "layer 3"),)
    status = CaptureStatus(
        1, 2, 0.5, disabled, 3, 4, 5, 0.25, {"table_full": 6}, {"discarded": 8}, Drawn(9, 2, 1, 4.5)
    )
    message = encode_status(status, {"queue_full": 7}, 2.5)
    assert len(message.ListFields()) == len(message.DESCRIPTOR.fields)
    counted = [(drop.reason, drop.segments, drop.requests, drop.rows) for drop in message.drops]
    assert counted == [("discarded", 0, 0, 8), ("queue_full", 7, 0, 0), ("table_full", 0, 6, 0)]
    drawn = message.sampler_tokens, message.sampler_low, message.sampler_high, message.sampler_sum
    assert drawn == (9, 2, 1, 4.5)
    assert message.queue_age_seconds == 2.5


def test_waits_double_up_to_a_limit_and_are_spread():
    backoff = Backoff(first_seconds=1.0, longest_seconds=8.0, jitter=0.25)
    rng = random.Random(1)
    for tries, expected in enumerate([1, 2, 4, 8, 8, 8], start=1):
        waits = [backoff.seconds(tries, None, rng) for _ in range(200)]
        assert 0.75 * expected <= min(waits) < max(waits) <= 1.25 * expected
        assert max(waits) - min(waits) > 0.3 * expected
    assert backoff.seconds(10_000, None, rng) <= 10.0


def test_a_wait_is_never_shorter_than_the_collector_wished():
    rng = random.Random(1)
    waits = [Backoff().seconds(1, 3.0, rng) for _ in range(200)]
    assert min(waits) >= 3.0
    assert max(waits) > min(waits)


def test_an_empty_response_is_full_success_without_directives():
    assert parse_reply(b"") == Reply()


def test_a_response_says_what_was_rejected_and_what_to_do():
    response = service_pb.ExportObservationsResponse(
        partial_success=service_pb.ExportObservationsPartialSuccess(rejected_segments=3, error_message="m"),
        directives=service_pb.Directives(max_sampling_probability=0.0, capture_off=True),
    )
    assert parse_reply(response.SerializeToString()) == Reply(3, "m", 0.0, capture_off=True)


def test_an_undecodable_response_is_a_permanent_failure():
    outcome = parse_reply(b"\xff\xff")
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.retryable) == ("bad_reply", False)


def test_a_retry_delay_is_found_among_the_details():
    status = status_pb2.Status()
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="other"))
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(1_500)
    status.details.add().Pack(info)
    assert parse_retry_seconds(status.SerializeToString()) == 1.5


@pytest.mark.parametrize("details", [b"", b"\xff\xff", status_pb2.Status(code=14).SerializeToString()])
def test_details_without_a_retry_delay_give_none(details):
    assert parse_retry_seconds(details) is None


class ScriptedLink:
    """A link whose every try takes some seconds of the clock and gives the next outcome."""

    def __init__(self, clock: list[float], seconds: float, *outcomes: Reply | Failure) -> None:
        self.timeouts: list[float] = []
        self._clock = clock
        self._seconds = seconds
        self._outcomes = list(outcomes)

    def send(self, frame: bytes, timeout_seconds: float) -> Reply | Failure:
        assert frame == b"frame"
        self.timeouts.append(timeout_seconds)
        self._clock[0] += self._seconds
        return self._outcomes.pop(0)

    def close(self) -> None:
        self.closed = True


def delivery(clock: list[float], link: ScriptedLink, *, timeout_seconds: float = 10.0) -> Delivery:
    return Delivery(
        lambda: link,
        timeout_seconds,
        Event(),
        clock=lambda: clock[0],
        rng=random.Random(0),
        backoff=Backoff(first_seconds=0.001, longest_seconds=0.001),
    )


def test_one_deadline_bounds_all_tries():
    clock = [100.0]
    failures = [Failure("unavailable", str(i), retryable=True) for i in range(9)]
    link = ScriptedLink(clock, 3.0, *failures)
    assert delivery(clock, link).deliver(b"frame") == failures[3]
    assert link.timeouts == pytest.approx([10, 7, 4, 1])


def test_a_shutdown_time_bounds_them_too():
    clock = [100.0]
    link = ScriptedLink(clock, 1.0, *[Failure("unavailable", "", retryable=True)] * 9)
    one = delivery(clock, link)
    one.not_after = 102.0
    one.deliver(b"frame")
    assert link.timeouts == pytest.approx([2, 1])


def test_a_wish_beyond_the_deadline_ends_the_tries_and_is_remembered():
    clock = [100.0]
    link = ScriptedLink(clock, 0.0, Failure("unavailable", "", retryable=True, retry_after_seconds=30))
    one = delivery(clock, link)
    assert isinstance(one.deliver(b"frame"), Failure)
    assert one.resume_at >= 130.0
    assert len(link.timeouts) == 1


def test_tls_files_that_cannot_be_read_are_a_failure_and_are_tried_again_with_the_next_frame():
    clock = [100.0]
    link = ScriptedLink(clock, 0.0, Reply())
    opened = [FileNotFoundError(2, "No such file", "/ca.pem"), link]

    def connect() -> ScriptedLink:
        match opened.pop(0):
            case OSError() as error:
                raise error
            case ScriptedLink() as found:
                return found

    one = Delivery(connect, 1.0, Event(), clock=lambda: clock[0], rng=random.Random(0), backoff=Backoff())
    failed = one.deliver(b"frame")
    assert failed == Failure("tls_files", "/ca.pem must be readable, got No such file")
    assert one.deliver(b"frame") == Reply()
