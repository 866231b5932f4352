"""The arithmetic of make bench-faults about traffic: delays, ranks, bounds, mixtures, what is kept."""

import numpy as np
import pytest

from bench.faults import greedy, quiet, requests, sampler, shares, silence, verdicts
from bench.faults.apart import apart
from bench.faults.late import late
from bench.faults.ledger import Ledger
from bench.faults.loops import Loops
from bench.faults.outputs_only import without_internals
from bench.faults.pool import Pool
from bench.faults.replay import Delay, Replay, Traffic
from bench.faults.result import Claim, Table
from bench.faults.rows import GREEDY
from bench.faults.tables import load, save
from bench.faults.verdicts import ranks
from introspan_wire.signals import Kind
from tests.batches import Traffic as MadeUp


@pytest.fixture(scope="module")
def pool():
    tables = MadeUp(seed=3).batch(900, 1e9).tables
    faulty = MadeUp(seed=4).batch(100, 1e9, shift=9.0).tables
    of_set = ("healthy-a-0",) * 900 + ("broken",) * 100
    whole = [_joined(a, b) for a, b in zip(tables, faulty, strict=True)]
    return Pool(whole[0], whole[1], of_set, np.zeros(1000))


def _joined(one, other):
    return type(one)(
        one.schema,
        *(
            list(getattr(one, name)) + list(getattr(other, name))
            if name in ("request_id", "adapter")
            else np.concatenate([getattr(one, name), getattr(other, name)])
            for name in list(one.__dataclass_fields__)[1:]
        ),
    )


@pytest.fixture(scope="module")
def replay(pool):
    return Replay(pool, pool.rows("healthy-"), 800, seed=1)


def _sent(pool, share):
    healthy, faulty = pool.rows("healthy-"), pool.rows("broken")
    return Traffic(lambda rng, count: shares.mixed(healthy, faulty, share, rng, count), 16)


def test_a_delay_is_counted_in_requests_and_seconds_from_the_fault_on(pool, replay):
    found = apart(lambda: _plain(replay.stream(_sent(pool, 1.0), 60, 5)))
    requests_, seconds = found["first"]
    assert 0 < requests_ <= 16 * 60
    assert seconds == requests_ / 16 * 10
    assert found["carried"]


def test_healthy_requests_raise_nothing_and_a_trial_leaves_no_traces(pool, replay):
    for _ in range(2):
        assert apart(lambda: _plain(replay.stream(_sent(pool, 0.0), 60, 5)))["first"] is None


def test_outputs_alone_do_not_see_what_only_internals_show(pool):
    blind = Replay(without_internals(pool), pool.rows("healthy-"), 800, seed=1)
    assert {c.signal for c in without_internals(pool).decoded.schema.columns} == {
        "output.entropy",
        "residual.projection",
    }
    blind.follow_outputs_only()
    assert blind.stream(_sent(pool, 1.0), 40, 5).first is None


def _plain(outcome):
    first = outcome.first
    return {"first": None if first is None else (first.requests, first.seconds), "carried": outcome.carried}


def test_a_mixture_has_the_share_of_faulty_requests_that_it_says():
    rows = shares.mixed(np.arange(10), np.arange(100, 110), 0.16, np.random.default_rng(0), 20_000)
    assert np.mean(rows >= 100) == pytest.approx(0.16, abs=0.01)


def test_a_trial_without_alarm_counts_as_many_requests_as_were_sent():
    trials = [
        {"arm": "outputs", "kind": "16 %", "first": None},
        {"arm": "outputs", "kind": "16 %", "first": {"requests": 32}},
    ]
    assert shares._requests(trials, "outputs").tolist() == [1600, 32]


def test_blocks_that_change_places_are_no_fault_and_count_in_no_target():
    def trial(arm, name, requests):
        return {"arm": arm, "kind": "16 %", "set": name, "first": {"requests": requests}, "page": None,
                "carried": []}  # fmt: skip

    found = [
        trial(arm, name, requests)
        for arm in ("outputs", "with internals")
        for name, requests in (("kv-swapped", 1600), ("kv-foreign", 32))
    ]
    result = shares.report(found, 10, 4)
    assert any("trials within 300 requests (1 of 1)" in claim.text for claim in result.claims)
    assert [row[1] for row in result.tables[0].rows] == ["kv-foreign", "kv-swapped"]


def test_faults_of_positions_count_for_themselves_and_against_their_own_limit():
    found = [
        {"arm": arm, "kind": "all requests", "set": name, "first": first, "page": None, "carried": []}
        for arm in ("outputs", "with internals")
        for name, first in (("engine-rope", {"requests": 32}), ("engine-positions", None))
    ]
    result = shares.report(found, 10, 4)
    claims = {claim.text.partition(" by ")[0]: claim.measured for claim in result.claims}
    assert (claims["RoPE θ × 10"], claims["positions + 1"]) == (32, 960)
    assert [row[1] for row in result.tables[0].rows] == ["engine-positions", "engine-rope"]
    (missed,) = [note for note in result.notes if note.startswith("Missed: positions + 1")]
    assert "1 of 1 trials not within 480 requests (1 never within 960)" in missed


def test_a_wrong_greedy_token_that_is_not_measured_counts_until_one_is_shown():
    wrong = np.zeros((2, 4), bool)
    wrong[:, 1] = True
    for first_shown, expected in (([3.0, np.inf], {2.0, 6.0}), ([4.0, 4.0], {3.0})):
        assert set(greedy.delays(wrong, np.array(first_shown)).tolist()) == expected


def test_faults_that_no_traffic_was_asked_with_are_not_measured():
    found = [
        {"arm": arm, "kind": "template", "set": "template-double-BOS", "first": {"requests": 32}, "page": None,
         "carried": []}
        for arm in ("outputs", "with internals")
    ]  # fmt: skip
    silent = [claim for claim in shares.report(found, 10, 4).claims if claim.measured is None]
    assert [(claim.text.partition(" by ")[0], claim.bound) for claim in silent] == [
        ("RoPE θ × 10", 480),
        ("positions + 1", 480),
    ]


def test_sets_noticed_late_are_named_with_how_many_never_were():
    def trial(name, first):
        return {"kind": "16 %", "set": name, "first": first and {"requests": first}}

    trials = [trial("kv-stale", 816), trial("kv-stale", None), trial("code", 64), trial("control: x", None)]
    (sentence,) = late(trials)
    assert sentence.startswith("Missed: 16 %, 2 of 3 trials not within 300 requests: kv-stale 2 (never 1). ")


def test_tokens_that_are_not_measured_count_as_delivered():
    found = [
        {"temperature": at, "way": way, "first": {"requests": 4}, "page": None}
        for at in (1.5, 1.1, 1.0)
        for way in ("one token a segment", "8 of 64 tokens, the default", "all of 64 tokens")
    ]
    result = sampler.report(
        found, ["vLLM", 8, 2, 2], Claim("all", None, 0, row=GREEDY), Loops([], Table("", (), ()))
    )
    delivered = {claim.text: claim.measured for claim in result.claims if "1.5: delivered" in claim.text}
    assert list(delivered.values()) == [256, 768]
    assert sum(claim.row == GREEDY and claim.measured is None for claim in result.claims) == 1


def test_a_two_sided_filter_takes_too_likely_texts_for_odd_too_and_unknown_ones_for_unknown():
    scores = np.array([-5.0, 50.0, 105.0, np.nan, *range(1, 101)])
    low, middle, high, unknown = verdicts._two_sided(scores, np.arange(4), np.arange(4, 104))
    assert middle < 0.02
    assert low == 0.5
    assert high >= 0.5
    assert np.isnan(unknown)


def test_a_filter_that_is_worse_than_chance_is_compared_from_its_better_side_too():
    random = np.random.default_rng(0)
    healthy, faulty = random.normal(size=80), random.normal(2.0, size=40)

    def judged(scores):
        outside = {requests._PERPLEXITY: -scores, verdicts.TWO_SIDED: np.abs(scores)}
        return requests.Judged("code", {"ours": scores}, outside)

    claims = [
        claim.text
        for claim in requests._claims("code", judged(healthy), [judged(faulty)], "ours", verdicts.TWO_SIDED)
        if "filter" in claim.text
    ]
    assert [text.partition(" (")[0] for text in claims] == [
        "code: AUROC less a one-sided perplexity filter's",
        "code: AUROC less a two-sided perplexity filter's",
        "code: AUROC less a filter's on too small a perplexity",
    ]


def test_the_interval_of_an_auroc_holds_it_and_that_of_a_difference_is_paired():
    random = np.random.default_rng(0)
    ours = random.normal(size=200), random.normal(2.0, size=60)
    low, high = requests.interval(ours)
    assert low < requests._auc(*ours) < high
    assert requests.interval(ours, ours) == (0.0, 0.0)


def test_ranks_go_on_beyond_the_sample_in_the_order_of_the_scores():
    found = ranks(np.array([0.5, 2.5, 10.0, 20.0]), np.array([1.0, 2.0, 3.0, np.nan]))
    assert found[0] == 0
    assert 0 < found[1] < 1 < found[2] < found[3]


def test_the_count_of_false_alarms_that_is_allowed_is_what_chance_seldom_exceeds():
    assert silence._most(0.01) == 0
    assert silence._most(1.0) == 3


def test_a_burst_is_of_one_cluster_and_the_rest_of_different_ones():
    clusters = silence._one_tenant(np.random.default_rng(0), 48)
    assert len(set(clusters.tolist())) == 16


def test_sets_are_read_as_they_were_written(tmp_path, pool):
    save(tmp_path / "a.npz", [pool.prompt, pool.decoded], {"prompt_logprob": np.arange(3.0)})
    tables, extra = load(tmp_path / "a.npz")
    assert tables[Kind.PROMPT].request_id == list(pool.prompt.request_id)
    assert np.array_equal(tables[Kind.DECODED].values, pool.decoded.values, equal_nan=True)
    assert extra["prompt_logprob"].tolist() == [0, 1, 2]


def test_a_line_that_was_cut_short_is_not_in_the_ledger(tmp_path):
    path = tmp_path / "trials" / "x.jsonl"
    Ledger(path).put("a", {"n": 1})
    with path.open("a") as file:
        file.write('["b", {"n"')
    again = Ledger(path)
    assert "a" in again
    assert "b" not in again
    again.put("b", {"n": 2})
    assert Ledger(path)["b"] == {"n": 2}


def test_a_trial_that_fails_apart_fails_here():
    def broken():
        raise ValueError("broken")

    with pytest.raises(RuntimeError, match="a trial failed"):
        apart(broken)


def test_seconds_of_a_delay_are_the_detectors():
    assert Delay(32, 20.0).seconds == 20.0


def test_slices_of_reference_and_usual_requests_come_two_to_three_and_the_rest_in_turn():
    order = list(quiet._order())
    first = [kind for kind, _ in order[:25]]
    assert (first.count("reference"), first.count("usual")) == (10, 15)
    early = [kind for kind, _ in order[:5]]
    assert (early.count("reference"), early.count("usual")) == (2, 3)
    assert [kind for kind, _ in order[25:31]] == ["alone", "cached", "chunked"] * 2
    assert order[-4:] == [(kind, 15) for kind in ("usual", "alone", "cached", "chunked")]
    assert len(set(order)) == len(order) == 74


def test_ticks_are_of_one_stratum_and_send_no_request_twice():
    strata = [np.arange(0, 40), np.arange(100, 150), np.arange(200, 210)]
    rows = silence._by_stratum(strata, 16, np.random.default_rng(0))
    assert len(rows) == len(set(rows.tolist())) == 32 + 48
    assert all(len(set((tick // 100).tolist())) == 1 for tick in rows.reshape(-1, 16))


def test_nulls_that_have_not_all_run_meet_nothing():
    def found(name, requests):
        return {"name": name, "how": "real", "requests": requests, "ticks": requests // 16, "alarms": 0, "pages": 0,
                "carried": []}  # fmt: skip

    some = silence.report([found("a", 4000)]).claims
    assert [claim.measured for claim in some[:2]] == [4000, 0]
    assert not any(claim.is_complete for claim in some[:2])
    whole = silence.report([found(str(i), 4000 - i) for i in range(7)]).claims
    assert whole[0].measured == 3994
    assert whole[0].is_met
    assert whole[1].is_complete
