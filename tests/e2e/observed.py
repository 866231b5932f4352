"""Request ids in, what `introspan observations` says of them out, once it does."""

from introspan.context import request_hash
from tests.patience import eventually

STRIDE, BURST = 24, 3
"""Of 24 decoded tokens, three in a row are measured; where they lie depends on the request's id."""


def observed(collector, *request_ids, last=()):
    """Observations by request id, once each request has one; last: the token positions that they must reach."""

    def complete():
        found = {}
        for one in collector.observations("--signal", "output.entropy"):
            found.setdefault(one["request_id"], []).append(one)
        assert set(request_ids) <= set(found), f"only {sorted(found)}"
        ends = [max(one["token_start"] + one["token_count"] - 1 for one in found[id_]) for id_ in request_ids]
        assert not last or ends == list(last), f"up to {ends}, not yet {last}"
        return {id_: found[id_] for id_ in request_ids}

    return eventually(complete)


def kinds(collector, request_id):
    return {one["kind"] for one in collector.observations("--request-id", request_id)}


def traces_of(observations):
    return {(one["trace_id"], one["span_id"]) for one in observations}


def measured_among(request_id, decoded_rows):
    """How many of a request's decoded rows are measured."""
    phase = (request_hash(request_id) >> 32) % STRIDE
    return sum((i + phase) % STRIDE < BURST for i in range(decoded_rows))


def last_of_a_burst(request_id, least):
    """A number of tokens after which a request's last decoded row is the last one of a burst."""
    phase = (request_hash(request_id) >> 32) % STRIDE
    return next(n for n in range(least, least + STRIDE) if (n - 2 + phase) % STRIDE == BURST - 1)
