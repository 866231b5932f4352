"""From rows of canaries to baselines, pages and successors; whatever is lost, late, foreign or restored in between."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from introspan_collector.detect.canary.rounds import Canaries
from introspan_collector.detect.sequential.tolerance import tail_bound
from introspan_collector.model import Batch
from tests.canary_rounds import ADDRESS, Fault, Model, output_batch, state_batch, without_states

ROUNDS = 8
LOST = 16.0
"""Seconds after which states are waited for no longer."""


class Watched:
    """Canaries that are told of a round every ten seconds."""

    def __init__(self, rounds=ROUNDS):
        self.canaries = Canaries(rounds)
        self.now = 1_000.0
        self.number = 0
        self.rng = np.random.default_rng(3)

    def hear(self, model, count=1, *, states=True, leave_out=(), asked=ADDRESS, signed=True, **how):
        """The rounds that were finished by these."""
        finished = []
        for _ in range(count):
            self.number += 1
            answers = model.round(self.rng, self.number, **how)
            for name, answer in answers.items():
                if name in leave_out:
                    continue
                self.canaries.consume(output_batch(answer, self.now, asked, signed=signed))
                if states:
                    self.canaries.consume(state_batch(answer, self.now))
            finished += self.canaries.advance(int(self.now * 1e9))
            self.now += 10
        return finished

    def lose(self, model, count=1, **how):
        """The rounds that were finished by these, whose states do not come."""
        finished = []
        for _ in range(count):
            finished += self.hear(model, states=False, **how) + self.later(LOST)
        return finished

    def later(self, seconds):
        self.now += seconds
        return self.canaries.advance(int(self.now * 1e9))


@pytest.fixture
def watched():
    return Watched()


@pytest.fixture
def ready(watched):
    watched.hear(Model(), ROUNDS)
    assert watched.canaries.baseline("m") is not None
    return watched


BAD = Fault(5, 0.0)


def test_as_many_rounds_as_wanted_make_a_baseline_and_later_ones_are_compared(watched):
    finished = watched.hear(Model(), ROUNDS - 1)
    assert [one.comparison for one in finished] == [None] * (ROUNDS - 1)
    assert watched.canaries.progress("m") == (ROUNDS - 1, ROUNDS, "")
    watched.hear(Model())
    assert watched.canaries.progress("m") == (0, ROUNDS, "")
    (one,) = watched.hear(Model())
    assert one.comparison is not None
    assert not one.comparison.deviates
    assert (one.replica, one.questions) == ("r0", ("chat", "extend", "long", "repeat", "short"))


def test_a_baseline_takes_sixty_four_rounds_unless_told_otherwise():
    assert Canaries().progress("m") == (0, 64, "")


def test_two_deviating_rounds_in_a_row_page_and_the_second_is_wanted_at_once(ready):
    (first,) = ready.hear(Model(), fault=BAD)
    assert (first.in_a_row, first.pages) == (1, False)
    assert ready.canaries.wanted("m")
    (second,) = ready.hear(Model(), fault=BAD)
    assert (second.in_a_row, second.pages, second.comparison.place) == (2, True, "layer 5")
    assert not ready.canaries.wanted("m")


def test_a_healthy_round_between_two_that_deviate_starts_anew(ready):
    rounds = [ready.hear(Model(), fault=fault)[0] for fault in (BAD, Fault(), BAD)]
    assert [one.in_a_row for one in rounds] == [1, 0, 1]
    assert not any(one.pages for one in rounds)


def test_a_second_round_that_does_not_come_is_not_wanted_for_ever(ready):
    ready.hear(Model(), fault=BAD)
    assert ready.canaries.wanted("m")
    ready.later(61)
    assert not ready.canaries.wanted("m")
    (late,) = ready.hear(Model(), fault=BAD)
    assert late.pages, "it was the next one all the same"


def test_a_neutral_change_never_pages(ready):
    rounds = ready.hear(Model(), 3, noise=200.0)
    assert [one.in_a_row for one in rounds] == [1, 2, 3]
    assert not any(one.pages for one in rounds)
    assert all(ready.canaries.evidence(one) is None for one in rounds)


def test_a_model_that_answers_the_same_under_another_fingerprint_succeeds_by_itself(ready):
    ready.hear(Model(fingerprint="beef"), ROUNDS - 1)
    assert ready.canaries.baseline("m").fingerprint == "f00d"
    ready.hear(Model(fingerprint="beef"))
    assert ready.canaries.baseline("m").fingerprint == "beef"


def test_a_model_that_answers_otherwise_becomes_the_baseline_only_when_people_say_so(ready):
    other = Model(seed=1, fingerprint="beef")
    rounds = ready.hear(other, 3 * ROUNDS)
    assert all(one.pages for one in rounds[1:])
    assert ready.canaries.baseline("m").fingerprint == "f00d"
    assert ready.canaries.progress("m")[:2] == (ROUNDS, ROUNDS)
    ready.canaries.promote("m")
    assert ready.canaries.baseline("m").fingerprint == "beef"
    (one,) = ready.hear(other)
    assert not one.comparison.deviates


def test_a_promotion_takes_as_many_rounds_as_a_first_baseline(ready):
    with pytest.raises(ValueError, match="no rounds"):
        ready.canaries.promote("m")
    ready.hear(Model(fingerprint="beef"), ROUNDS - 1)
    with pytest.raises(ValueError, match=f"must be >= {ROUNDS}"):
        ready.canaries.promote("m")
    with pytest.raises(ValueError, match="unheard"):
        ready.canaries.promote("unheard")


def test_damaged_rounds_under_the_same_fingerprint_never_become_the_baseline(ready):
    before = ready.canaries.baseline("m")
    ready.hear(Model(), 3 * ROUNDS, fault=BAD)
    assert ready.canaries.baseline("m") is before
    assert ready.canaries.progress("m") == (0, ROUNDS, "")


def test_rounds_that_disagree_are_said_to_and_pass_in_time(watched):
    watched.hear(Model(), 1, fault=BAD)
    watched.hear(Model(), ROUNDS - 1)
    assert watched.canaries.baseline("m") is None
    assert "agree" in watched.canaries.progress("m")[2]
    watched.hear(Model())
    assert watched.canaries.baseline("m") is not None
    assert watched.canaries.progress("m")[2] == ""


@pytest.mark.parametrize("how", [{"leave_out": ("repeat",)}, {"fault": Fault(nonfinite_from=4)}])
def test_rounds_that_are_not_whole_and_sound_enter_no_baseline(watched, how):
    watched.hear(Model(), ROUNDS - 1)
    watched.hear(Model(), 3, **how)
    watched.later(31)
    assert watched.canaries.progress("m")[0] == ROUNDS - 1
    watched.hear(Model())
    assert watched.canaries.baseline("m") is not None


def test_a_round_whose_states_are_lost_is_compared_by_its_outputs_and_changes_nothing_else(ready):
    assert ready.hear(Model(), states=False) == []
    (one,) = ready.later(LOST)
    assert not one.comparison.deviates
    assert (one.comparison.has_states, one.replica) == (False, "r0"), "nobody else answers at that address"
    assert ready.canaries.progress("m")[0] == 0
    assert ready.canaries.baseline("m").layer_count > 0
    assert "INTROSPAN_CANARY_KEY" in ready.canaries.progress("m")[2]
    ready.hear(Model())
    assert ready.canaries.progress("m")[2] == ""


def test_lost_states_of_one_round_do_not_throw_away_those_gathered(watched):
    watched.hear(Model(), ROUNDS - 1)
    watched.lose(Model())
    assert watched.canaries.progress("m")[0] == ROUNDS - 1
    watched.hear(Model())
    assert watched.canaries.baseline("m").layer_count > 0


def test_one_question_whose_states_are_late_stays_in_its_round(ready):
    answers = Model().round(ready.rng, 99)
    for name, answer in answers.items():
        ready.canaries.consume(output_batch(answer, ready.now))
        if name != "chat":
            ready.canaries.consume(state_batch(answer, ready.now))
    assert ready.canaries.advance(int(ready.now * 1e9)) == []
    (one,) = ready.later(LOST)
    assert (one.replica, len(one.questions)) == ("r0", 5)
    assert one.comparison.has_states


def test_without_the_key_there_is_a_baseline_of_outputs_and_nobody_waits_for_states(watched):
    rounds = watched.hear(Model(), ROUNDS, states=False, signed=False)
    assert len(rounds) == ROUNDS
    assert watched.canaries.baseline("m").layer_count == 0
    assert not watched.canaries.wanted("m")
    (one,) = watched.hear(Model(), states=False, signed=False, fault=BAD)
    assert one.comparison.deviates
    assert (one.comparison.place, one.replica) == ("", ADDRESS)


def test_where_states_were_to_come_outputs_alone_make_a_baseline_after_ten_minutes_without_any(watched):
    watched.lose(Model(), ROUNDS)
    assert watched.canaries.baseline("m") is None
    assert watched.canaries.progress("m")[0] == ROUNDS
    saved = watched.canaries.snapshot()
    watched.canaries = Canaries(ROUNDS)
    watched.canaries.restore(saved)
    watched.later(600)
    watched.lose(Model())
    assert watched.canaries.baseline("m").layer_count == 0


def test_where_states_came_once_and_never_again_outputs_alone_make_a_baseline_in_time(watched):
    watched.hear(Model(), 2)
    watched.lose(Model(), ROUNDS)
    assert watched.canaries.progress("m")[0] == 2
    for _ in range(2):
        watched.later(600)
        watched.lose(Model(), ROUNDS)
    assert watched.canaries.baseline("m").layer_count == 0


def test_rounds_without_states_are_kept_apart_and_forgotten_when_states_come(watched):
    watched.lose(Model(), ROUNDS - 1)
    watched.hear(Model(), ROUNDS)
    assert watched.canaries.baseline("m").layer_count > 0
    assert watched.canaries.baseline("m").replicas == ("r0",)
    assert [one.replica for one in watched.canaries.last("m")] == ["r0"], (
        "nobody goes by the address any more"
    )


def test_a_round_whose_states_are_lost_is_asked_again_at_once_a_few_times(ready):
    wanted = []
    for _ in range(5):
        ready.lose(Model())
        wanted.append(ready.canaries.wanted("m"))
        ready.later(61)
    assert wanted == [True] * 3 + [False] * 2
    ready.hear(Model())
    ready.lose(Model())
    assert ready.canaries.wanted("m")


def test_of_several_replicas_at_one_address_it_is_not_known_who_gave_an_answer_without_states(ready):
    other = Model()
    other.origin = replace(other.origin, replica="r1")
    ready.hear(Model())
    ready.hear(other)
    (one,) = ready.lose(Model())
    assert one.replica == ADDRESS
    assert {one.replica for one in ready.canaries.last("m")} == {"r0", "r1", ADDRESS}
    ready.hear(Model())
    assert {one.replica for one in ready.canaries.last("m")} == {"r0", "r1"}
    ready.later(3_600)
    ready.hear(other)
    (one,) = ready.lose(other)
    assert one.replica == "r1", "the other has not answered for an hour"


def test_a_round_without_states_continues_the_row_of_who_answers_there(ready):
    ready.hear(Model(), fault=BAD)
    (second,) = ready.lose(Model(), fault=BAD)
    assert (second.replica, second.in_a_row, second.pages) == ("r0", 2, True)


def ranks(*scales):
    """A model at several data-parallel ranks, each with rounding of its own."""
    found = []
    for rank, scale in enumerate(scales):
        model = Model()
        model.origin = replace(model.origin, replica=f"r0-dp{rank}", data_parallel_rank=rank)
        found.append((model, {"asked": f"{ADDRESS}-dp{rank}", "noise": scale}))
    return found


def tour(watched, models, count=1):
    """The rounds of each, one after the other, so many times."""
    return [one for _ in range(count) for model, how in models for one in watched.hear(model, **how)]


def test_each_rank_gathers_a_baseline_of_its_own_and_is_compared_with_the_shared_one_until_then(watched):
    models = ranks(1.0, 1.0)
    tour(watched, models, ROUNDS // 2)
    assert watched.canaries.baseline("m").replicas == ("r0-dp0", "r0-dp1")
    shared = tour(watched, models, ROUNDS)
    assert not any(one.is_own for one in shared)
    assert all(one.comparison is not None for one in shared)
    own = tour(watched, models)
    assert [(one.replica, one.is_own, one.baseline_rounds) for one in own] == [
        ("r0-dp0", True, ROUNDS),
        ("r0-dp1", True, ROUNDS),
    ]
    assert watched.canaries.progress("m") == (0, ROUNDS, "")


def test_what_is_lost_in_the_rounding_of_another_rank_is_seen_by_a_rank_s_own_baseline(watched):
    models = ranks(1000.0, 1.0)
    tour(watched, models, ROUNDS // 2)
    _, (quiet, how) = models
    small = Fault(5, 1.0 + 1e-4)
    (before,) = watched.hear(quiet, fault=small, **how)
    tour(watched, models, ROUNDS)
    (after,) = watched.hear(quiet, fault=small, **how)
    assert (before.is_own, after.is_own) == (False, True)
    assert before.comparison.ratio < 1
    assert after.comparison.place == "layer 5"


def test_a_rank_that_deviates_never_becomes_its_own_baseline(watched):
    models = ranks(1.0, 1.0)
    tour(watched, models, ROUNDS // 2)
    (bad, how), _ = models
    rounds = watched.hear(bad, 3 * ROUNDS, fault=BAD, **how)
    assert all(one.comparison.deviates and not one.is_own for one in rounds)


def test_one_instance_alone_is_compared_with_the_shared_baseline_which_is_its_own(ready):
    (one,) = ready.hear(Model())
    assert one.is_own
    assert ready.canaries._models["m"].own.gathering == {}


def test_few_gather_at_a_time_and_those_that_are_asked_no_longer_give_way(watched):
    models = ranks(1.0, 1.0, 1.0, 1.0)
    tour(watched, models, ROUNDS // 4)
    tour(watched, models, 2)
    own = watched.canaries._models["m"].own
    assert set(own.gathering) == {"r0-dp0", "r0-dp1"}
    tour(watched, models[2:], ROUNDS)
    assert set(own.gathering) == {"r0-dp0", "r0-dp1"}, "they may come back"
    watched.later(1_000)
    tour(watched, models[2:], ROUNDS + 1)
    assert set(own.baselines) == {"r0-dp2", "r0-dp3"}


def test_another_model_gives_no_evidence_and_as_it_succeeds_every_rank_begins_anew(watched):
    models = ranks(1.0, 1.0)
    tour(watched, models, 3 * ROUNDS)
    (model, how), _ = models
    model.origin = replace(model.origin, fingerprint="beef")
    (one,) = watched.hear(model, **how)
    assert watched.canaries.evidence(one) is None
    watched.hear(model, ROUNDS, **how)
    assert watched.canaries.baseline("m").fingerprint == "beef"
    assert watched.canaries._models["m"].own.baselines == {}


def test_a_round_that_ends_early_is_compared_after_half_a_minute(ready):
    assert ready.hear(Model(), leave_out=("chat", "repeat", "extend"), fault=BAD) == []
    (one,) = ready.later(31)
    assert (one.questions, one.comparison.place) == (("long", "short"), "layer 5")
    assert ready.canaries.evidence(one) is None, (
        "chance makes more of fewer numbers than of those it was ranked by"
    )


def test_a_round_of_a_busy_server_is_whole_though_it_lasts_over_a_minute(ready):
    ready.number += 1
    finished = []
    for answer in Model().round(ready.rng, ready.number).values():
        ready.canaries.consume(output_batch(answer, ready.now))
        ready.canaries.consume(state_batch(answer, ready.now))
        finished += ready.later(20)
    (one,) = finished
    assert len(one.questions) == 5


def test_a_round_of_which_nothing_can_be_compared_is_not(ready):
    ready.hear(Model(seed=1), leave_out=("short", "long", "chat", "repeat"))
    (one,) = ready.later(31)
    assert one.comparison is None
    assert ready.canaries.evidence(one) is None


def test_replicas_deviate_each_for_itself(ready):
    bad, good = Model(), Model()
    bad.origin = replace(bad.origin, replica="r1")
    rounds = []
    for _ in range(2):
        rounds += ready.hear(bad, fault=BAD) + ready.hear(good)
    assert [(one.replica, one.pages) for one in rounds] == [
        ("r1", False), ("r0", False), ("r1", True), ("r0", False),
    ]  # fmt: skip
    assert {one.replica for one in ready.canaries.last("m")} == {"r0", "r1"}


def test_evidence_has_the_bound_that_its_number_of_rounds_allows(ready):
    (healthy,) = ready.hear(Model())
    (bad,) = ready.hear(Model(), fault=BAD)
    for one, x in ((healthy, 0.0), (bad, 1.0)):
        evidence = ready.canaries.evidence(one)
        assert evidence.x.tolist() == [[x, x]]
        # Of two figures, so that for all but one baseline in a hundred both bounds hold.
        assert evidence.bound.tolist() == [tail_bound(1, ROUNDS, 0.01 / 2)] * 2
        assert [(one.detector, one.side) for one in evidence.streams] == [
            ("canary", "high"),
            ("canary", "largest"),
        ]
    # Exceeding all n of a baseline has, for all but one baseline in a hundred, at most this chance.
    assert tail_bound(1, 64, 0.01) == pytest.approx(1 - 0.01 ** (1 / 64))
    beyond = np.random.default_rng(0).beta(1, 64, 20_000)
    assert np.mean(beyond > tail_bound(1, 64, 0.01)) == pytest.approx(0.01, abs=0.003)


def test_what_moves_all_a_little_and_what_moves_one_place_are_evidence_each_by_itself(ready):
    (one,) = ready.hear(Model())
    for ratio, largest, x in ((2.0, 2.0, [0, 0]), (2.1, 2.1, [1, 1]), (1.0, 2.1, [0, 1])):
        found = replace(one.comparison, ratio=ratio, largest_ratio=largest)
        moved = replace(one, comparison=found, rank_limit=2.0, largest_limit=2.0)
        assert ready.canaries.evidence(moved).x.tolist() == [x]
    moved = replace(moved, comparison=replace(found, ratio=1.5), rank_limit=1.4, largest_limit=3.0)
    assert ready.canaries.evidence(moved).x.tolist() == [[1, 0]]


@pytest.mark.thorough
@pytest.mark.parametrize("at", [1, ROUNDS, 3 * ROUNDS])
def test_a_restart_changes_nothing_for_ranks(at):
    straight, restarted = Watched(), Watched()
    expected = tour(straight, ranks(1.0, 1.0), 4 * ROUNDS)
    got = tour(restarted, ranks(1.0, 1.0), at)
    saved = restarted.canaries.snapshot()
    restarted.canaries = Canaries(ROUNDS)
    restarted.canaries.restore(saved)
    assert restarted.canaries.snapshot() == saved
    got += tour(restarted, ranks(1.0, 1.0), 4 * ROUNDS - at)
    assert [(one.comparison, one.is_own) for one in got] == [(one.comparison, one.is_own) for one in expected]
    assert straight.canaries.snapshot() == restarted.canaries.snapshot()


@pytest.mark.parametrize("at", [3, ROUNDS + 1, ROUNDS + 3])
def test_a_restart_anywhere_changes_nothing(at):
    faults = [Fault()] * ROUNDS + [Fault(), BAD, BAD, BAD, Fault()]
    straight, restarted = Watched(), Watched()
    expected = [one for fault in faults for one in straight.hear(Model(), fault=fault)]
    got = []
    for i, fault in enumerate(faults):
        if i == at:
            saved = restarted.canaries.snapshot()
            restarted.canaries = Canaries(ROUNDS)
            restarted.canaries.restore(saved)
            assert restarted.canaries.snapshot() == saved
            assert [asdict(one) for one in restarted.canaries.last("m")] == [asdict(one) for one in got[-1:]]
        got += restarted.hear(Model(), fault=fault)
    assert [(one.comparison, one.in_a_row) for one in got] == [
        (one.comparison, one.in_a_row) for one in expected
    ]
    assert straight.canaries.snapshot() == restarted.canaries.snapshot()


def test_a_damaged_snapshot_is_refused(ready):
    saved = bytearray(ready.canaries.snapshot())
    saved[len(saved) // 2] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        Canaries().restore(bytes(saved))


def test_rounds_that_stay_open_and_models_are_bounded():
    canaries = Canaries(ROUNDS, models=3)
    answers = Model().rounds(1)[0]
    for i in range(6):
        for answer in answers.values():
            other = replace(answer, round=f"{i:016x}", origin=replace(answer.origin, model=f"m{i}"))
            canaries.consume(output_batch(other, 1_000.0))
            canaries.consume(state_batch(other, 1_000.0))
        canaries.advance(int(1_000e9))
    assert canaries.models() == ("m3", "m4", "m5")
    for i in range(1_500):
        answer = replace(answers["short"], round=f"{10_000 + i:016x}")
        canaries.consume(output_batch(answer, 1_000.0))
        canaries.consume(state_batch(answer, 1_000.0))
    assert len(canaries.advance(int(1_100e9))) <= 1_024


def test_a_batch_without_canaries_is_nothing():
    canaries = Canaries()
    canaries.consume(Batch(0, 1, 0, b"p" * 16, 1, Model().origin, (), None))
    assert canaries.advance(10**18) == []
    assert without_states({}) == {}


def test_a_baseline_of_other_questions_is_compared_with_nothing_and_replaced(ready):
    model = ready.canaries._models["m"]
    model.baseline = replace(model.baseline, suite="00000000")
    assert [one.comparison for one in ready.hear(Model(), ROUNDS)] == [None] * ROUNDS
    (one,) = ready.hear(Model())
    assert one.comparison is not None
    assert ready.canaries.baseline("m").suite == one.suite
