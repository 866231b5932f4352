"""Signal mathematics over every shape, size and oddity that hypothesis finds."""

import math
from itertools import pairwise

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from introspan.capture.output.repetition import longest_period_tail
from introspan.capture.output.sampler import Sampling, pit
from introspan.capture.output.vocabulary import Vocabulary
from introspan.capture.stream.residual import curvature, direction, layer_statistics, step

EXAMPLES = settings(max_examples=60, deadline=None)
SEEDS = st.integers(0, 2**31)


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@EXAMPLES
@given(
    seed=SEEDS,
    d=st.integers(2, 300),
    exponent=st.integers(-36, 36),
    after_exponent=st.integers(-3, 3),
    bad=st.sampled_from([None, math.nan, math.inf, -math.inf]),
)
def test_layers_are_measured_alike_at_every_size(seed, d, exponent, after_exponent, bad):
    h = _random(seed, 2, d) * 10.0**exponent
    after = _random(seed + 1, 2, d) * 10.0 ** min(36, exponent + after_exponent)
    if bad is not None:
        h[1, seed % d] = bad
    found = layer_statistics(direction(h), direction(after))
    rows = [0] if bad is not None else [0, 1]
    for row in rows:
        at, then = h[row].double().numpy(), after[row].double().numpy()
        size = np.linalg.norm(at)
        cosine = at @ then / (size * np.linalg.norm(then))
        expected = {
            "log_rms": math.log(size / math.sqrt(d)),
            "log_peak": math.log(np.abs(at).max() * math.sqrt(d) / size),
            "turn": math.log10(max(1 - cosine, 1e-14)),
            "update_ratio": np.linalg.norm(then - at) / size,
        }
        for name, value in expected.items():
            # 1 − cos of nearly parallel streams is only as exact as their float32 directions.
            slack = 1e-4 if name != "turn" or 1 - cosine > 1e-6 else 0.5
            assert math.isclose(float(getattr(found, name)[row]), value, rel_tol=1e-5, abs_tol=slack), name
    assert found.nonfinite.tolist() == [0, 0 if bad is None else 1]
    if bad is not None:
        assert all(
            getattr(found, name)[1].isnan() for name in ("log_rms", "log_peak", "turn", "update_ratio")
        )


@EXAMPLES
@given(seed=SEEDS, d=st.integers(2, 200), exponents=st.tuples(*[st.integers(-30, 30)] * 3))
def test_steps_do_not_depend_on_the_size_of_the_stream(seed, d, exponents):
    burst = [_random(seed + i, 1, d) * 10.0**exponent for i, exponent in enumerate(exponents)]
    units = [direction(h).unit for h in burst]
    earlier, later = (step(last, current) for last, current in pairwise(units))
    velocity, angle = later.length.item(), curvature(earlier, later).item()
    unit = [h.double().numpy()[0] for h in burst]
    unit = [h / np.linalg.norm(h) for h in unit]
    b, a = (later - earlier for earlier, later in pairwise(unit))
    assert math.isclose(velocity, np.linalg.norm(a), abs_tol=1e-5)
    assert 0 <= velocity <= 2 + 1e-6
    if min(np.linalg.norm(a), np.linalg.norm(b)) > 1e-3:
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        assert math.isclose(math.cos(angle), cosine, abs_tol=1e-3)


@EXAMPLES
@given(
    seed=SEEDS,
    size=st.integers(2, 400),
    magnitude=st.sampled_from([0.0, 1e-3, 1.0, 20.0, 1e4]),
    offset=st.sampled_from([0.0, -1e4, 1e4]),
    masked=st.integers(0, 3),
)
def test_output_is_that_of_the_softmax(seed, size, magnitude, offset, masked):
    logits = _random(seed, 1, size) * magnitude + offset
    masked = min(masked, size - 2)
    logits[0, :masked] = -math.inf
    found = Vocabulary(size).statistics(logits[0].numpy(), size - 1)
    p = logits[0].double().softmax(dim=0)
    two = p.topk(2).values
    assert math.isclose(found.entropy, torch.special.entr(p).sum().item(), abs_tol=1e-4)
    assert math.isclose(found.margin, (two[0] - two[1]).item(), abs_tol=1e-5)
    expected = logits[0].double().log_softmax(dim=0)[-1].item()
    assert math.isclose(found.logprob, expected, abs_tol=1e-4, rel_tol=1e-6)
    assert found.nonfinite == 0


def _sampled(x, top_k, top_p, min_p):
    """q [V] of tempered logits by sorting. Settings that hit a token's mass to the last digit are passed over."""
    q = np.exp(x - x.max())
    assume(np.abs(q - min_p).min() > 1e-6)
    q[q < min_p] = 0.0
    if 0 < top_k < len(q):
        q[q < np.sort(q)[-top_k]] = 0.0
    q /= q.sum()
    order = np.argsort(q, kind="stable")
    gone = np.cumsum(q[order])
    if top_p < 1:
        assume(np.abs(gone - (1 - top_p)).min() > 1e-5)
        q[order[:-1][gone[:-1] <= 1 - top_p]] = 0.0
    return q / q.sum()


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    size=st.one_of(st.integers(2, 300), st.integers(1000, 1200)),
    levels=st.integers(1, 200),
    temperature=st.floats(0.05, 2.0),
    top_k=st.one_of(st.integers(-1, 60), st.integers(900, 1300)),
    top_p=st.floats(0.01, 1.0),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 1.0)),
)
def test_pit_covers_the_unit_interval_once_in_steps_of_q(
    seed, size, levels, temperature, top_k, top_p, min_p
):
    """U runs over [0, 1] without gap or overlap, which makes it uniform, whatever ties and filters do."""
    logits = torch.randint(
        levels, (size,), generator=torch.Generator().manual_seed(seed)
    ).numpy() / np.float32(7)
    asked = Sampling(temperature, top_k, top_p, min_p, reproducible=True)
    q = _sampled(logits.astype(np.float64) / temperature, top_k, top_p, min_p)
    vocabulary = Vocabulary(size)
    vocabulary.statistics(logits, 0)
    weights = vocabulary.weights(temperature).clone()
    low, high = (np.array([pit(weights, token, asked, v) for token in range(size)]) for v in (0.0, 1.0))
    spans = sorted(
        {(round(a, 5), round(b, 5)) for a, b in zip(low.tolist(), high.tolist(), strict=True) if b > a}
    )
    assert abs(spans[0][0]) < 1e-4
    assert abs(spans[-1][1] - 1) < 1e-4
    assert all(abs(before[1] - after[0]) < 1e-4 for before, after in pairwise(spans))
    up_to = np.array([q[q >= x].sum() for x in q])
    assert np.allclose(high[q > 0], up_to[q > 0], atol=1e-4)


@EXAMPLES
@given(
    head=st.lists(st.integers(0, 3), max_size=200),
    cycle=st.lists(st.integers(0, 3), min_size=1, max_size=70),
    length=st.integers(0, 1500),
    periods=st.integers(1, 64),
)
def test_repetition_is_its_definition(head, cycle, length, periods):
    tokens = head + [cycle[i % len(cycle)] for i in range(length)]
    expected = 0
    for k in range(1, periods + 1):
        run = 0
        while run < len(tokens) - k and tokens[-1 - run] == tokens[-1 - run - k]:
            run += 1
        expected = max(expected, run + k) if run + k >= min(3 * k, 168) else expected
    assert longest_period_tail(np.array(tokens, dtype=np.int64), periods) == expected
