"""What people decide about alarms and references, and what the detector then does."""

import math
from dataclasses import replace

import numpy as np
import pytest

from introspan_collector.detect.canary.comparison import Comparison
from introspan_collector.detect.canary.followed import Followed
from introspan_collector.detect.canary.round import Round
from introspan_collector.detect.detector import Detector
from introspan_collector.detect.levels import ALL
from introspan_collector.detect.live.window import WINDOW_TICKS
from introspan_collector.detect.reference.file import from_bytes
from introspan_collector.detect.reference.reference import State
from introspan_collector.detect.report import Report
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.notice import Links
from tests.batches import ORIGIN, Traffic
from tests.canary_rounds import Fault, Model, output_batch, state_batch

SETTINGS = DetectSettings(
    provisional_clusters=60, frozen_clusters=400, frozen_hours=0.0, quiet_seconds=600.0, quiet_requests=10_000
)


HEALTHY = Fault()


class Desk:
    """A detector, its clock, and somebody who decides."""

    def __init__(self, settings=SETTINGS, **traffic):
        self.now = 1_800_000_000.0
        self.told = []
        self.settings = settings
        self.detector = Detector(settings, self.told.append, Links("runbook.md"), lambda: self.now)
        self.report = Report(self.detector, lambda: self.now)
        self.traffic = Traffic(**traffic)

    def run(self, ticks, requests=20, **fault):
        for _ in range(ticks):
            self.now += 10.0
            self.detector.consume(self.traffic.batch(requests, self.now, **fault))
            self.detector.advance()
        return self

    def ask_canary(self, rounds, fault=HEALTHY):
        """Rounds of a canary whose model has the fault."""
        for _ in range(rounds):
            self.now += 1.0
            for answer in Model().round(self.traffic.rng, int(self.now), fault).values():
                self.detector.consume(output_batch(answer, self.now))
                self.detector.consume(state_batch(answer, self.now))
            self.detector.advance()
        return self

    def restarted(self):
        twin = Desk(self.settings)
        twin.now, twin.traffic = self.now, self.traffic
        twin.detector.restore(self.detector.snapshot())
        return twin

    @property
    def reference(self):
        (one,) = self.report.references()
        return one

    @property
    def open(self):
        return [one for one in self.report.alarms() if one["state"] != "resolved"]

    def acknowledge(self, **accept):
        (one,) = self.open
        return self.report.acknowledge(one["id"], "somebody", "seen", **accept)


def deviating(desk, in_a_row=2, also_clean=()):
    """The last round of a canary that deviates: of itself a new model inherits nothing then."""
    found = Comparison(
        20.0, 20.0, (0.5, 20.0, 30.0), 0.5, 0, "layer 0", 0.2, 0.9, flipped=3, nonfinite=0, has_states=True
    )
    origin = replace(ORIGIN, **desk.traffic.who)
    last = Round("m", "r0", "0a", origin, int(desk.now * 1e9), "suite", ("short",), found, in_a_row)
    with desk.detector.still() as state:
        clean = {
            name: replace(last, replica=name, comparison=replace(found, ratio=0.5)) for name in also_clean
        }
        state.pieces.canaries._models["m"] = Followed(
            64, last={"r0": last, **clean}, before={"r0": in_a_row}, again={"r0": 1}
        )
    return last


@pytest.fixture(scope="module")
def frozen():
    """The state of a detector whose reference is frozen, and the hash of that."""
    desk = Desk().run(40)
    assert desk.reference["state"] == "frozen"
    return desk


@pytest.fixture
def desk(frozen):
    return frozen.restarted()


def test_progress_of_a_reference_is_visible_from_its_first_request():
    desk = Desk().run(2)
    assert (desk.reference["state"], desk.reference["reference"]) == ("none", None)
    (building,) = desk.reference["building"]
    assert (building["clusters"], building["reached"]) == (40, "none")
    assert building["objections"] == ["40 of 400 clusters"]
    desk.run(2)
    assert desk.reference["state"] == "provisional"
    assert desk.reference["reference"]["content_sha256"]


def test_halves_that_differ_are_named_among_the_objections():
    desk = Desk().run(10).run(11, shift=3.0)
    assert any("differs from the earlier" in text for text in desk.reference["building"][-1]["objections"])
    assert desk.reference["state"] == "provisional"


def test_levels_of_detectors_and_of_all_are_those_of_the_test(desk):
    desk.run(3, temperature=1.1)
    levels = {(one["copy"], one["detector"]): one["log10"] for one in desk.report.detection()["levels"]}
    with desk.detector.still() as state:
        assert levels["ticket", ALL] == pytest.approx(state.pieces.ticket.levels()["m", ""])
        assert levels["page", ALL] == pytest.approx(state.pieces.page.levels()["m", ""])
        logs = state.pieces.ticket.evidence()
        mine = [
            x for x, of in zip(logs, state.pieces.ticket.streams, strict=True) if of.detector == "sampler"
        ]
    assert levels["ticket", "sampler"] == pytest.approx(math.log10(sum(10**x for x in mine)))


def test_new_traffic_that_is_accepted_is_learnt_and_ends_the_incident(desk):
    before = desk.reference["reference"]["content_sha256"]
    desk.run(30, shift=3.0)
    (incident,) = desk.open
    desk.run(10, shift=3.0)
    assert not desk.reference["building"]  # what nobody accepted is not learnt
    done = desk.acknowledge(accept_as_class=True)
    assert done["alarm"]["state"] == "acknowledged"
    assert "60 more clusters" in done["accepted"]
    assert desk.reference["accepted_until_clusters"] == 60
    desk = desk.restarted().run(4, shift=3.0)
    assert not desk.open
    ended = desk.report.alarm(incident["id"])
    learnt = desk.reference["reference"]["content_sha256"]
    assert learnt != before
    assert learnt in ended["resolution"]
    assert desk.reference["accepted_until_clusters"] is None
    desk.run(20, shift=3.0)
    assert not desk.open


def test_acknowledging_alone_learns_nothing(desk):
    desk.run(30, shift=3.0)
    assert desk.acknowledge(accept_as_class=False)["accepted"] == ""
    desk.run(10, shift=3.0)
    assert not desk.reference["building"]
    assert desk.open


def test_accepting_another_model_promotes_what_was_built_of_it(desk):
    desk.traffic.who["fingerprint"] = "beef"
    deviating(desk)
    desk.run(10)
    assert desk.reference["reference"]["differs_from_served"] == ["fingerprint is 'f00d', not 'beef'"]
    desk.detector.consume(desk.traffic.batch(4, desk.now, nonfinite=3))
    with pytest.raises(ValueError, match=r"canaries are not clean: .*--force"):
        desk.acknowledge(accept_as_class=True)
    assert desk.open[0]["state"] == "open", "what is refused leaves nothing behind"
    assert "promoted" in desk.acknowledge(accept_as_class=True, force=True)["accepted"]
    assert desk.reference["reference"]["identity"]["fingerprint"] == "beef"
    assert desk.reference["state"] == "frozen"
    assert desk.reference["reference"]["despite"] == ["canaries are not clean"]
    assert not desk.open


def test_what_was_accepted_is_collected_on_while_canaries_deviate():
    desk = Desk().run(40).run(30, shift=3.0)
    desk.acknowledge(accept_as_class=True)
    desk.run(1, shift=3.0)
    with desk.detector.still() as state:
        (watch,) = state.watches.values()
        watch.doubt("f00d", desk.now)
    assert desk.reference["building"]


def test_promoting_takes_what_was_collected_and_ends_the_incident():
    desk = Desk().run(6)
    assert desk.reference["state"] == "provisional"
    desk.run(20, temperature=2.0)
    (incident,) = desk.open
    found = desk.report.promote("m", "")
    assert found["state"] == "frozen"
    assert desk.reference["reference"]["content_sha256"] == found["content_sha256"]
    assert desk.report.alarm(incident["id"])["state"] == "resolved"
    assert desk.told[-1].ended_unix_seconds is not None


def test_a_reference_that_something_speaks_against_is_promoted_by_force_alone_and_says_so():
    desk = Desk().run(10).run(11, shift=3.0)
    with pytest.raises(ValueError, match=r"differs from the earlier one .*--force"):
        desk.report.promote("m", "")
    assert desk.reference["state"] == "provisional"
    promoted = desk.report.promote("m", "", force=True)
    assert "differs from the earlier" in promoted["despite"][0]
    (said,) = desk.reference["reference"]["despite"]
    exported = from_bytes(desk.report.export("m", "", draft=False))
    assert exported.despite == (said,)
    assert desk.restarted().reference["reference"]["despite"] == [said]


def test_a_reference_is_not_promoted_while_a_canary_deviates_unless_by_force():
    desk = Desk().run(6)
    deviating(desk, in_a_row=1)
    with pytest.raises(ValueError, match="canaries are not clean"):
        desk.report.promote("m", "")
    assert desk.report.promote("m", "", force=True)["despite"] == ["canaries are not clean"]


def test_a_reference_that_nothing_speaks_against_needs_no_force_and_says_nothing():
    desk = Desk().run(6)
    assert desk.report.promote("m", "", force=True)["despite"] == []


def test_one_round_that_deviates_has_a_reference_collected_anew_though_the_next_is_clean():
    desk = Desk(replace(SETTINGS, canary_rounds=8)).ask_canary(8).run(10)
    assert desk.reference["building"][-1]["clusters"] == 200
    desk.ask_canary(1, Fault(5, 0.0))
    assert desk.reference["building"] == []
    desk = desk.restarted().ask_canary(1).run(2)
    (building,) = desk.reference["building"]
    assert building["clusters"] == 40
    assert "collected anew since" in building["objections"][-1]
    assert desk.reference["state"] == "provisional", "what it is compared with stays"
    desk.run(20)
    assert desk.reference["state"] == "frozen"
    assert 400 <= desk.reference["reference"]["clusters"] <= 440


def test_a_canary_of_another_model_leaves_what_was_collected_of_this_one():
    desk = Desk(replace(SETTINGS, canary_rounds=8)).ask_canary(8).run(4)
    with desk.detector.still() as state:
        (watch,) = state.watches.values()
        watch.doubt("beef", desk.now)
        assert watch.building()
        watch.doubt("", desk.now)
        assert not watch.building(), "of a round without states it is not known which model it was"


def test_promoting_too_little_says_how_much_it_takes():
    desk = Desk().run(2)
    with pytest.raises(ValueError, match="60 clusters"):
        desk.report.promote("m", "")
    with pytest.raises(ValueError, match="nothing was heard of other"):
        desk.report.promote("other", "")


def test_a_reference_that_is_exported_can_be_adopted_elsewhere_before_any_traffic(frozen):
    data = frozen.report.export("m", "", draft=False)
    desk = Desk(seed=3)
    assert desk.report.adopt(data)["content_sha256"] == frozen.reference["reference"]["content_sha256"]
    assert desk.reference["state"] == "frozen"
    desk.run(40, shift=2.0)
    assert desk.open[0]["reference"] == frozen.reference["reference"]["content_sha256"]


def test_a_reference_of_what_is_not_served_is_refused_by_name(frozen):
    desk = Desk()
    desk.traffic.who["fingerprint"] = "beef"
    desk.run(1)
    with pytest.raises(ValueError, match="fingerprint is 'f00d', not 'beef'"):
        desk.report.adopt(frozen.report.export("m", "", draft=False))
    assert desk.reference["state"] == "none"


def test_a_reference_beyond_the_limit_of_models_is_refused(frozen):
    desk = Desk(DetectSettings(subject_limit=1))
    desk.traffic.who["model"] = "other"
    desk.run(1)
    with pytest.raises(ValueError, match="subject_limit"):
        desk.report.adopt(frozen.report.export("m", "", draft=False))


def test_a_draft_is_what_was_collected_so_far_and_changes_nothing():
    desk = Desk().run(2)
    found = from_bytes(desk.report.export("m", "", draft=True))
    assert (found.state, found.counts.clusters) == (State.PROVISIONAL, 40)
    assert desk.reference["state"] == "none"
    with pytest.raises(ValueError, match="no reference yet"):
        desk.report.export("m", "", draft=False)


def test_a_frozen_reference_has_no_draft(desk):
    with pytest.raises(ValueError, match="nothing is being collected"):
        desk.report.export("m", "", draft=True)


def test_a_deploy_that_is_over_cannot_be_announced(desk):
    with pytest.raises(ValueError, match="end must be after now"):
        desk.report.announce("m", desk.now - 60, desk.now - 1, "late")
    window = desk.report.announce("m", None, desk.now + 60, "new weights")
    assert desk.report.windows() == [window]
    desk.run(30, temperature=2.0)
    assert desk.report.windows() == []


def test_an_incident_of_a_deploy_counts_once(desk):
    desk.report.announce("m", None, desk.now + 100, "new weights")
    desk.run(5, temperature=2.0)
    assert not desk.told
    desk.run(10, temperature=2.0)
    assert desk.told
    (counted,) = desk.report.opened()
    assert counted == {"model": "m", "adapter": "", "alertname": "IntrospanSamplerDeviates", "count": 1}


def test_a_canary_is_shown_with_where_it_deviates_and_whether_it_matters(desk):
    deviating(desk, in_a_row=1)
    desk.now += 5.0
    (one,) = desk.report.canaries()
    assert (one["model"], one["baseline"], one["gathered"], one["needed"]) == ("m", None, 0, 64)
    assert one["wanted"]
    (replica,) = one["replicas"]
    assert (replica["age_seconds"], replica["layer"], replica["place"]) == (pytest.approx(5.0), 0, "layer 0")
    assert (replica["layer_ratios"], replica["flipped"]) == ([0.5, 20.0, 30.0], 3)
    assert (replica["deviates"], replica["equivalent"]) == (True, False)
    with pytest.raises(ValueError, match="no rounds"):
        desk.report.promote_canary("m")


def test_what_was_accepted_is_learnt_no_longer_once_it_is_over():
    desk = Desk(replace(SETTINGS, quiet_seconds=100.0, quiet_requests=20)).run(40)
    desk.run(30, shift=3.0)
    desk.acknowledge(accept_as_class=True)
    desk.run(1, shift=3.0).run(20, requests=2)
    assert not desk.open
    assert (desk.reference["state"], desk.reference["building"]) == ("frozen", [])
    assert desk.reference["accepted_until_clusters"] is None


def test_what_people_decide_is_to_be_saved_at_once(desk):
    desk.detector.snapshot()
    assert not desk.detector.decided
    desk.report.announce("m", None, desk.now + 60, "new weights")
    assert desk.detector.decided
    desk.detector.snapshot()
    assert not desk.detector.decided


def test_drift_is_shown_of_what_a_reference_can_follow(desk):
    desk.run(1)
    drift = {one["kind"]: (one["distance"], one["threshold"]) for one in desk.report.detection()["drift"]}
    distance, threshold = drift["prompt"]
    assert 0 < distance < threshold


def test_the_course_of_drift_has_a_point_for_each_window_and_outlives_a_restart(desk):
    desk.run(3 * WINDOW_TICKS)
    (prompt,) = [one for one in desk.report.course("m", "") if one["kind"] == "prompt"]
    times = np.array([at for at, _, _ in prompt["points"]])
    assert len(times) >= 3
    assert (np.diff(times)[-2:] == WINDOW_TICKS * 10.0).all()
    assert all(0 < distance < threshold for _, distance, threshold in prompt["points"])
    again = Desk()
    again.detector.restore(desk.detector.snapshot())
    assert again.report.course("m", "") == desk.report.course("m", "")
    assert desk.report.course("nobody", "") == []


def test_one_replica_whose_canary_deviates_keeps_a_reference_from_being_built():
    desk = Desk()
    deviating(desk, also_clean=("r1",))
    desk.run(10)
    assert desk.reference["state"] == "none"
    desk.now += 3600.0  # r0 was taken out of service long ago
    assert desk.run(2).reference["state"] == "provisional"


def test_references_of_many_models_are_fitted_one_at_a_time():
    desk = Desk(SETTINGS)
    for model in ("m", "n", "o"):
        desk.traffic.who["model"] = model
        for _ in range(4):
            desk.now += 1.0
            desk.detector.consume(desk.traffic.batch(20, desk.now))
    taken = []
    for _ in range(4):
        desk.now += 0.25
        desk.detector.advance()
        taken.append(sum(one["state"] != "none" for one in desk.report.references()))
    assert taken == [1, 2, 3, 3]
