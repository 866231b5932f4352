"""What a person is told to look at first."""

import pytest

from introspan_collector.detect.incident.triage import Canary, Moved, Situation, Verdict, moved_in, triage
from introspan_collector.detect.sequential.evidence import Stream

NOT_MOVED = [state for state in Canary if state is not Canary.MOVED]


def told(*moved, canary=Canary.STILL, **more):
    return triage(Situation(frozenset(moved), canary, **more))


@pytest.mark.parametrize("canary", NOT_MOVED)
def test_a_sampler_that_moved_alone_is_the_sampler_whatever_the_canary_knows(canary):
    assert told(Moved.SAMPLER, canary=canary).verdict is Verdict.SAMPLER
    assert told(Moved.SAMPLER, Moved.DECODED, Moved.CLASSES, canary=canary).verdict is Verdict.SAMPLER


def test_a_sampler_that_moved_with_prompt_rows_is_not_taken_for_the_sampler():
    found = told(Moved.SAMPLER, Moved.PROMPT)
    assert found.verdict is Verdict.MODEL
    assert any("second fault" in reason for reason in found.reasons)


@pytest.mark.parametrize("besides", [(), (Moved.SAMPLER,), (Moved.CLASSES, Moved.OUTSIDE)])
def test_a_canary_that_moved_is_the_model_and_names_where_it_begins(besides):
    found = told(*besides, canary=Canary.MOVED, place="layer 7")
    assert found.verdict is Verdict.MODEL
    assert "layer 7" in found.reasons[0]
    assert not found.ask_canary


@pytest.mark.parametrize("moved", [Moved.NONFINITE, Moved.CONSISTENCY, Moved.CANARY])
@pytest.mark.parametrize("canary", list(Canary))
def test_what_no_traffic_can_cause_is_the_model(moved, canary):
    assert told(moved, Moved.OUTSIDE, canary=canary).verdict is Verdict.MODEL


@pytest.mark.parametrize("canary", NOT_MOVED)
def test_a_shift_within_classes_is_the_model(canary):
    assert told(Moved.PROMPT, canary=canary).verdict is Verdict.MODEL


@pytest.mark.parametrize("moved", [(Moved.CLASSES,), (Moved.OUTSIDE,), (Moved.OUTSIDE, Moved.PROMPT)])
def test_other_requests_are_traffic_only_once_the_canary_is_known_to_be_still(moved):
    expected = {
        Canary.STILL: Verdict.TRAFFIC,
        Canary.UNKNOWN: Verdict.PENDING,
        Canary.ASKED: Verdict.PENDING,
        Canary.SILENT: Verdict.UNDETERMINED,
    }
    assert {canary: told(*moved, canary=canary).verdict for canary in NOT_MOVED} == expected


@pytest.mark.parametrize("moved", [(Moved.BEYOND,), (Moved.BEYOND, Moved.PROMPT, Moved.DECODED)])
def test_prompts_unlike_every_healthy_one_are_a_fault_where_no_canary_says_that_the_model_is_as_it_was(moved):
    expected = {
        Canary.STILL: Verdict.TRAFFIC,
        Canary.UNKNOWN: Verdict.PENDING,
        Canary.ASKED: Verdict.PENDING,
        Canary.SILENT: Verdict.MODEL,
    }
    assert {canary: told(*moved, canary=canary).verdict for canary in NOT_MOVED} == expected


def test_the_canary_is_asked_once_when_its_answer_is_not_known():
    asking = [canary for canary in Canary if told(Moved.OUTSIDE, canary=canary).ask_canary]
    assert asking == [Canary.UNKNOWN]


def test_one_replica_that_differs_is_named_and_the_cause_stays_open():
    found = told(Moved.REPLICA, replicas=("pod-3",))
    assert found.verdict is Verdict.UNDETERMINED
    assert "Only pod-3 is affected" in found.reasons[-1]


def test_nothing_known_is_undetermined():
    assert told().verdict is Verdict.UNDETERMINED


@pytest.mark.parametrize("canary", list(Canary))
@pytest.mark.parametrize("moved", list(Moved))
def test_every_verdict_has_reasons_that_are_sentences(moved, canary):
    reasons = told(moved, canary=canary).reasons
    assert reasons
    assert all(reason[0].isupper() and reason.endswith(".") for reason in reasons)


def test_streams_are_told_apart_by_detector_kind_and_side():
    def stream(detector, kind="", side="high", signal="residual.log_rms"):
        return Stream("m", "", "", detector, kind, signal, 3, side)

    expected = {
        stream("sampler"): Moved.SAMPLER,
        stream("bank", "prompt"): Moved.PROMPT,
        stream("bank", "prompt", signal="output.entropy"): Moved.PROMPT,
        # The first token drawn is no more of the prompt than those after it.
        stream("bank", "prompt", signal="output.logprob"): Moved.DECODED,
        stream("bank", "decoded"): Moved.DECODED,
        stream("drift", "prompt"): Moved.PROMPT,
        stream("extremes", "decoded"): Moved.DECODED,
        stream("extremes", "decoded", side="beyond all", signal=""): Moved.DECODED,
        stream("extremes", "prompt", side="beyond all but 7", signal=""): Moved.PROMPT,
        # Unlike every healthy prompt: novel, or a fault.
        stream("extremes", "prompt", side="beyond all", signal=""): Moved.BEYOND,
        stream("extremes", "prompt", signal="class.none"): Moved.OUTSIDE,
        stream("classes"): Moved.CLASSES,
        stream("classes", side="outside"): Moved.OUTSIDE,
        stream("canary"): Moved.CANARY,
        stream("replicas"): Moved.REPLICA,
        stream("nonfinite", "prompt"): Moved.NONFINITE,
        stream("consistency"): Moved.CONSISTENCY,
    }
    assert {one: next(iter(moved_in([one]))) for one in expected} == expected
