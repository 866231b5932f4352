"""Claims on a real vLLM server whose clients leave, and whose collector hangs, is killed, or gives orders.

The orders come last: they hold until the server restarts.
"""

import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from client import SENTENCE, Ask, name, talk
from observed import kinds, last_of_a_burst, observed

from introspan.context import is_chosen, request_hash
from tests.patience import eventually

pytestmark = pytest.mark.alone

PAUSE_SECONDS = 5


def test_a_client_that_leaves_ends_its_observations_and_nobody_elses(deployment, collector):
    leaver = Ask(SENTENCE, id=name(), stream=True, tokens=400, leave=lambda arrivals: len(arrivals) == 40)
    stayers = [Ask(f"Stay with me, {i}.", id=name(), tokens=60) for i in range(3)]
    left, *stayed = talk(deployment.vllm, leaver, *stayers)
    found = eventually(
        lambda: (
            kinds(collector, left.id) == {"prompt", "decoded"}
            and collector.observations("--request-id", left.id)
        )
    )
    last = max(one["token_start"] + one["token_count"] - 1 for one in found)
    # At least what the client saw, all but the last token of which was fed back, and not much more.
    assert 36 <= last - found[0]["prompt_tokens"] < 200
    assert [(answer.status, answer.usage["completion_tokens"]) for answer in stayed] == [(200, 60)] * 3
    observed(collector, *(answer.id for answer in stayed))


def test_a_collector_that_hangs_holds_up_no_stream_and_misses_nothing(deployment, collector):
    paused = []

    def leave(arrivals):
        if len(arrivals) == 30:
            collector.signal(signal.SIGSTOP)
            paused.append(arrivals[-1])
        # So many that a segment ended meanwhile, which the exporter is then stuck with.
        return len(arrivals) > 130 and arrivals[-1] - paused[0] > PAUSE_SECONDS

    try:
        (answer,) = talk(deployment.vllm, Ask(SENTENCE, id=name(), stream=True, tokens=1_500, leave=leave))
    finally:
        collector.signal(signal.SIGCONT)
    gaps = np.diff(answer.arrivals)
    before, during = gaps[1:29], gaps[29:]
    assert during.max() < PAUSE_SECONDS / 2, "a thread that waits for the collector waits till the end"
    assert np.median(during) < 3 * np.median(before)
    assert eventually(lambda: kinds(collector, answer.id) == {"prompt", "decoded"})
    assert collector.samples("introspan_sdk_dropped_segments_total") == {}


def test_a_collector_killed_amid_traffic_loses_nothing_and_counts_nothing_twice(deployment, collector):
    ids = [name() for _ in range(8)]
    asks = [
        Ask(f"{i} herons. {SENTENCE}", id=id_, tokens=last_of_a_burst(f"chatcmpl-{id_}", least=100))
        for i, id_ in enumerate(ids)
    ]
    accepted = collector.metric("introspan_collector_accepted_segments_total")
    with ThreadPoolExecutor(1) as pool:
        talking = pool.submit(talk, deployment.vllm, *asks)
        eventually(lambda: collector.metric("introspan_collector_accepted_segments_total") > accepted)
        collector.kill()
        assert not talking.done(), "the collector has to be away while there is traffic"
        time.sleep(1)
        collector.start()
        answers = talking.result()
    assert {answer.status for answer in answers} == {200}
    ends = [answer.usage["prompt_tokens"] + one.tokens - 2 for one, answer in zip(asks, answers, strict=True)]
    observed(collector, *(answer.id for answer in answers), last=ends)
    measured = collector.observations("--signal", "output.entropy")
    assert set(Counter((one["request_id"], one["segment"]) for one in measured).values()) == {1}
    assert collector.metric("introspan_output_entropy_nats_count") == len(measured)
    assert collector.samples("introspan_sdk_dropped_segments_total") == {}


def test_the_collector_can_lower_the_share_of_requests_that_is_measured(deployment, collector):
    collector.stop()
    collector.start(ACCEPT__MAX_SAMPLING_PROBABILITY="0.25")
    eventually(lambda: set(collector.samples("introspan_sdk_sampling_probability_ratio").values()) == {0.25})
    ids = [name() for _ in range(24)]
    chosen = [id_ for id_ in ids if is_chosen(request_hash(f"chatcmpl-{id_}"), 0.25)][:2]
    others = [id_ for id_ in ids if not is_chosen(request_hash(f"chatcmpl-{id_}"), 0.25)][:4]
    answers = talk(deployment.vllm, *(Ask("Hello.", id=id_) for id_ in (*others, *chosen)))
    assert {answer.status for answer in answers} == {200}
    found = observed(collector, *(f"chatcmpl-{id_}" for id_ in chosen))
    assert {one["sampling_probability"] for of in found.values() for one in of} == {0.25}
    assert not {f"chatcmpl-{id_}" for id_ in others} & {one["request_id"] for one in collector.observations()}


def test_the_collector_can_switch_capture_off_and_the_server_serves_on(deployment, collector):
    collector.stop()
    collector.start(ACCEPT__CAPTURE_OFF="true")
    (disabled,) = eventually(lambda: collector.samples("introspan_capture_disabled"))
    assert 'signal="capture"' in disabled
    assert 'reason="remote_brake"' in disabled
    measured = collector.samples("introspan_sdk_measured_rows_total")
    answers = talk(deployment.vllm, *(Ask("Hello.", id=name(), tokens=30) for _ in range(4)))
    assert {answer.status for answer in answers} == {200}
    answered = time.time()
    eventually(
        lambda: min(collector.samples("introspan_sdk_last_seen_timestamp_seconds").values()) > answered
    )
    assert collector.samples("introspan_sdk_measured_rows_total") == measured
    assert not {answer.id for answer in answers} & {one["request_id"] for one in collector.observations()}
