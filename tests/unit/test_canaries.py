"""From rows of canaries to baselines, pages and successors; whatever is lost, late, foreign or restored in between."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from introspan_collector.detect.canary.rounds import Canaries
from introspan_collector.detect.sequential.tolerance import tail_bound
from introspan_collector.model import Batch
from tests.canary_rounds import Fault, Model, output_batch, state_batch, without_states

ROUNDS = 8


class Watched:
    """Canaries that are told of a round every ten seconds."""

    def __init__(self, rounds=ROUNDS):
        self.canaries = Canaries(rounds)
        self.now = 1_000.0
        self.number = 0
        self.rng = np.random.default_rng(3)

    def hear(self, model, count=1, *, states=True, leave_out=(), **how):
        """The rounds that were finished by these."""
        finished = []
        for _ in range(count):
            self.number += 1
            answers = model.round(self.rng, self.number, **how)
            for name, answer in answers.items():
                if name in leave_out:
                    continue
                self.canaries.consume(output_batch(answer, self.now))
                if states:
                    self.canaries.consume(state_batch(answer, self.now))
            finished += self.canaries.advance(int(self.now * 1e9))
            self.now += 10
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
    (one,) = ready.later(6)
    assert not one.comparison.deviates
    assert (one.comparison.has_states, one.replica) == (False, "http://vllm:8000")
    assert ready.canaries.progress("m")[0] == 0
    assert ready.canaries.baseline("m").layer_count > 0
    assert "INTROSPAN_CANARY_KEY" in ready.canaries.progress("m")[2]
    ready.hear(Model())
    assert ready.canaries.progress("m")[2] == ""


def test_lost_states_of_one_round_do_not_throw_away_those_gathered(watched):
    watched.hear(Model(), ROUNDS - 1)
    watched.hear(Model(), states=False)
    watched.later(6)
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
    (one,) = ready.later(6)
    assert (one.replica, len(one.questions)) == ("r0", 5)
    assert one.comparison.has_states


def test_a_server_without_the_key_has_a_baseline_of_outputs(watched):
    for _ in range(ROUNDS):
        watched.hear(Model(), states=False)
        watched.later(6)
    assert watched.canaries.baseline("m").layer_count == 0
    watched.hear(Model(), states=False, fault=BAD)
    (one,) = watched.later(6)
    assert one.comparison.deviates
    assert one.comparison.place == ""


def test_a_round_that_ends_early_is_compared_after_half_a_minute(ready):
    assert ready.hear(Model(), leave_out=("chat", "repeat", "extend"), fault=BAD) == []
    (one,) = ready.later(31)
    assert (one.questions, one.comparison.place) == (("long", "short"), "layer 5")


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
    assert {one.replica for one in ready.canaries.last()} == {"r0", "r1"}


def test_evidence_has_the_bound_that_its_number_of_rounds_allows(ready):
    (healthy,) = ready.hear(Model())
    (bad,) = ready.hear(Model(), fault=BAD)
    for one, x in ((healthy, 0.0), (bad, 1.0)):
        evidence = ready.canaries.evidence(one)
        assert evidence.x.tolist() == [[x]]
        assert evidence.bound.tolist() == [tail_bound(1, ROUNDS, 0.01)]
        assert evidence.streams[0].detector == "canary"
    # Exceeding all n of a baseline has, for all but one baseline in a hundred, at most this chance.
    assert tail_bound(1, 64, 0.01) == pytest.approx(1 - 0.01 ** (1 / 64))
    beyond = np.random.default_rng(0).beta(1, 64, 20_000)
    assert np.mean(beyond > tail_bound(1, 64, 0.01)) == pytest.approx(0.01, abs=0.003)


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
            assert [asdict(one) for one in restarted.canaries.last()] == [asdict(one) for one in got[-1:]]
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
