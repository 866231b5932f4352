"""What is kept for whom, and what is given up."""

import math
import random
import sqlite3
from pathlib import Path

import pytest
from httpx import Headers
from hypothesis import given
from hypothesis import strategies as st

from introspan_collector.notice import Notice, Severity
from introspan_collector.notify.delivery import Result, judged, wait_seconds
from introspan_collector.notify.notifier import Notifier
from introspan_collector.notify.outbox import Outbox
from introspan_collector.notify.settings import NotifySettings
from introspan_collector.notify.storage import Storage

DAY_SECONDS = 86_400.0


def told(subject="m", incident="i1", severity=Severity.WARNING, at=100.0, ended=None):
    return Notice(
        subject=subject,
        incident=incident,
        severity=severity,
        labels=(("alertname", "A"), ("model", subject), ("severity", severity.value)),
        annotations=(("summary", f"at {at}"),),
        details="{}",
        started_unix_seconds=100.0,
        updated_unix_seconds=at,
        ended_unix_seconds=ended,
    )


def by_labels(notice):
    return notice.identity


def by_incident(notice):
    return notice.incident


@pytest.fixture
def box(tmp_path):
    return outbox(tmp_path)


def outbox(folder, limit=10, **targets):
    return Outbox(Storage(folder / "outbox.sqlite"), targets or {"t": by_labels}, limit, DAY_SECONDS)


def due(box, target="t", now=1.0, unix=100.0, most=100):
    return box.due(target, now, unix, most)


def notices(letters):
    return [letter.notice for letter in letters]


def test_a_newer_notice_takes_the_place_of_the_one_that_waits(box):
    box.put(told(at=101), now=0.0)
    box.put(told(at=102), now=0.5)
    assert notices(due(box)) == [told(at=102)]


def test_what_changed_while_it_was_sent_is_sent_again_at_once(box):
    box.put(told(at=101), now=0.0)
    sent = due(box)
    box.put(told(at=102), now=1.0)
    box.delivered("t", sent, again=60.0)
    assert notices(due(box)) == [told(at=102)]


def test_what_lasts_is_due_again_and_its_end_once(box):
    box.put(told(), now=0.0)
    box.delivered("t", due(box), again=60.0)
    assert (due(box), box.next_due("t"), box.waiting()) == ([], 60.0, {"t": 0})
    assert len(due(box, now=60.0)) == 1
    box.put(told(ended=150.0), now=61.0)
    (end,) = due(box, now=61.0)
    assert (end.told, end.over) == (True, True)
    box.delivered("t", [end], again=120.0)
    assert (due(box, now=1e6), box.next_due("t")) == ([], math.inf)


def test_an_alert_with_other_labels_ends_the_one_before_it_of_the_same_subject(box):
    box.put(told(), now=0.0)
    box.delivered("t", due(box), again=60.0)
    box.put(told(severity=Severity.CRITICAL, at=130.0), now=1.0)
    ended, lasting = sorted(due(box), key=lambda letter: letter.notice.severity, reverse=True)
    assert (ended.notice.severity, ended.notice.ended_unix_seconds) == (Severity.WARNING, 130.0)
    assert (lasting.notice.severity, lasting.over) == (Severity.CRITICAL, False)


def test_one_that_was_never_told_and_is_superseded_is_not_told_at_all(box):
    box.put(told(), now=0.0)
    box.put(told(severity=Severity.CRITICAL), now=0.0)
    assert notices(due(box)) == [told(severity=Severity.CRITICAL)]


@pytest.mark.parametrize("is_answered", [True, False])
def test_one_that_is_superseded_on_its_way_is_ended_whether_or_not_it_arrived(box, is_answered):
    box.put(told(), now=0.0)
    sent = due(box)
    box.put(told(severity=Severity.CRITICAL, at=101.0), now=0.0)
    box.delivered("t", sent, again=60.0) if is_answered else box.failed("t", sent)
    ended, lasting = sorted(due(box), key=lambda letter: letter.notice.severity, reverse=True)
    assert (ended.notice.severity, ended.told, ended.over) == (Severity.WARNING, True, True)
    assert (lasting.notice.severity, lasting.over) == (Severity.CRITICAL, False)


def test_targets_are_told_apart(tmp_path):
    box = outbox(tmp_path, a=by_labels, b=by_incident)
    box.put(told(), now=0.0)
    box.delivered("a", due(box, "a"), again=60.0)
    assert (due(box, "a"), len(due(box, "b"))) == ([], 1)
    box.put(told(severity=Severity.CRITICAL), now=0.0)
    assert (len(due(box, "a")), len(due(box, "b"))) == (2, 1)


def test_a_full_box_gives_up_what_is_least_worth_and_counts_it(tmp_path):
    box = outbox(tmp_path, limit=3)
    box.put(told("page", severity=Severity.CRITICAL, at=100), now=0.0)
    box.put(told("over", at=105, ended=105.0), now=0.0)
    box.put(told("old", at=101), now=0.0)
    box.put(told("new", at=102), now=0.0)
    assert [one.subject for one in notices(due(box))] == ["page", "old", "new"]
    box.put(told("newer", at=103), now=0.0)
    assert [one.subject for one in notices(due(box))] == ["page", "new", "newer"]
    assert box.dropped == {"queue_full": 2}


def test_an_end_that_nobody_took_for_a_day_is_given_up_what_lasts_is_not(box):
    box.put(told("over", ended=100.0), now=0.0)
    box.put(told("lasts"), now=0.0)
    assert len(due(box, unix=100.0 + DAY_SECONDS)) == 2
    assert [one.subject for one in notices(due(box, unix=101.0 + DAY_SECONDS))] == ["lasts"]
    assert box.dropped == {"expired": 1}


def test_refused_is_counted_and_an_end_given_up(box):
    box.put(told(), now=0.0)
    box.refused("t", due(box), "http_400", again=60.0)
    assert (due(box), box.dropped) == ([], {"http_400": 1})
    box.put(told(ended=101.0), now=1.0)
    box.refused("t", due(box), "http_400", again=60.0)
    assert (box.next_due("t"), box.dropped) == (math.inf, {"http_400": 2})


def test_those_that_failed_least_go_first(box):
    box.put(told("a", at=100), now=0.0)
    box.put(told("b", at=101), now=0.0)
    box.failed("t", due(box, most=1))
    assert [one.subject for one in notices(due(box))] == ["b", "a"]


def test_a_restart_tells_everything_that_lasts_at_once_and_remembers_what_was_told(tmp_path):
    box = outbox(tmp_path)
    box.put(told("a"), now=0.0)
    box.delivered("t", due(box), again=60.0)
    box.put(told("b", at=101), now=0.0)
    again = outbox(tmp_path)
    assert [(one.notice.subject, one.told) for one in due(again)] == [("a", True), ("b", False)]


def test_what_is_over_is_not_told_again_when_the_log_is_read_again(tmp_path):
    box = outbox(tmp_path)
    box.put(told(), now=0.0)
    box.delivered("t", due(box), again=60.0)
    box.put(told(ended=150.0), now=1.0)
    box.delivered("t", due(box), again=60.0)
    again = outbox(tmp_path)
    for one in (told(), told(ended=150.0)):
        again.put(one, now=2.0)
    assert due(again, now=2.0) == []
    again.put(told(incident="i2"), now=2.0)
    assert notices(due(again, now=2.0)) == [told(incident="i2")]


def test_a_restart_tells_one_who_is_told_once_only_what_is_new(tmp_path):
    def restarted():
        storage = Storage(tmp_path / "outbox.sqlite")
        return Outbox(storage, {"t": by_incident}, 10, DAY_SECONDS, once=("t",))

    box = restarted()
    box.put(told("known"), now=0.0)
    box.delivered("t", due(box), again=math.inf)
    box.put(told("new", incident="i2"), now=0.0)
    again = restarted()
    assert [one.subject for one in notices(due(again))] == ["new"]
    again.put(told("known"), now=2.0)
    assert [one.subject for one in notices(due(again, now=2.0))] == ["new"], "it knows this already"
    again.put(told("known", at=101.0), now=2.0)
    assert len(due(again, now=2.0)) == 2


def test_a_target_that_is_no_longer_configured_is_forgotten_and_counted(tmp_path):
    outbox(tmp_path, gone=by_labels).put(told(), now=0.0)
    assert outbox(tmp_path).dropped == {"target_removed": 1}
    assert outbox(tmp_path).dropped == {}


def test_alerts_whose_incident_nobody_knows_are_ended(box):
    box.put(told("known"), now=0.0)
    box.put(told("unknown"), now=0.0)
    box.delivered("t", due(box), again=60.0)
    box.retain({"known"}, now_unix_seconds=200.0, due=30.0)
    assert due(box, now=29.0) == []
    (ended,) = notices(due(box, now=30.0))
    assert (ended.subject, ended.ended_unix_seconds) == ("unknown", 200.0)


def test_an_alert_that_the_log_brings_back_in_time_is_not_ended(box):
    box.put(told(), now=0.0)
    box.delivered("t", due(box), again=60.0)
    box.retain(set(), now_unix_seconds=200.0, due=30.0)
    box.put(told(incident="read again", at=201.0), now=2.0)
    assert notices(due(box, now=40.0)) == [told(incident="read again", at=201.0)]


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to look like one", b""])
def test_a_damaged_file_is_put_aside_counted_and_begun_anew(tmp_path, content):
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(content)
    storage = Storage(path)
    assert storage.errors == ({"damaged": 1} if content else {})
    assert path.with_suffix(".damaged").exists() == bool(content)
    box = Outbox(storage, {"t": by_labels}, 10, DAY_SECONDS)
    box.put(told(), now=0.0)
    assert len(due(outbox(tmp_path))) == 1


def test_a_notice_of_another_version_is_left_out_and_counted(tmp_path):
    outbox(tmp_path).put(told(), now=0.0)
    with sqlite3.connect(tmp_path / "outbox.sqlite") as database:
        database.execute("update letters set notice = '{}'")
    storage = Storage(tmp_path / "outbox.sqlite")
    assert due(Outbox(storage, {"t": by_labels}, 10, DAY_SECONDS)) == []
    assert storage.errors == {"unreadable": 1}


@pytest.mark.parametrize("at", [0, 100, 4096, 5000, 3 * 4096, 5 * 4096])
def test_a_file_damaged_anywhere_stops_nothing(tmp_path, at):
    path = tmp_path / "outbox.sqlite"
    storage = Storage(path)
    box = Outbox(storage, {"t": by_labels}, 1000, DAY_SECONDS)
    for i in range(50):
        box.put(told(f"model {i}"), now=0.0)
    storage.close()
    data = bytearray(path.read_bytes())
    data[at : at + 200] = b"\xff" * 200
    path.write_bytes(data)
    again = outbox(tmp_path, limit=1000)
    again.put(told("after"), now=0.0)
    assert "after" in [one.subject for one in notices(due(again))]
    assert "after" in [one.subject for one in notices(due(outbox(tmp_path, limit=1000)))]


def test_what_a_damaged_file_had_not_written_back_is_not_taken_for_the_new_ones(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    storage = Storage(before / "outbox.sqlite")
    Outbox(storage, {"t": by_labels}, 10, DAY_SECONDS).put(told("a"), now=0.0)
    storage.close()
    box = outbox(before)
    box.put(told("b"), now=0.0)
    after.mkdir()
    for name in ("outbox.sqlite", "outbox.sqlite-wal"):  # as a kill leaves them
        (after / name).write_bytes((before / name).read_bytes())
    (after / "outbox.sqlite").write_bytes(b"no database, but longer than its header would be" * 3)
    again = outbox(after)
    assert due(again) == []
    again.put(told("c"), now=0.0)
    assert [one.subject for one in notices(due(outbox(after)))] == ["c"]


def test_a_disk_that_refuses_is_counted_and_notices_are_told_from_memory(tmp_path):
    storage = Storage(tmp_path / "outbox.sqlite")
    box = Outbox(storage, {"t": by_labels}, 10, DAY_SECONDS)
    storage._database.execute("pragma query_only = on")
    box.put(told(), now=0.0)
    assert len(due(box)) == 1
    assert storage.errors["not_saved"] == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Severity), st.booleans()), max_size=20))
def test_at_most_one_alert_of_a_subject_lasts(steps):
    box = Outbox(Storage(Path(":memory:")), {"t": by_labels}, 10, DAY_SECONDS)
    for at, (subject, severity, over) in enumerate(steps):
        box.put(told(subject, f"{at}", severity, 100.0 + at, 100.0 + at if over else None), now=0.0)
        box.delivered("t", due(box)[:1], again=60.0)
        lasting = [one.subject for one in notices(due(box, now=100.0)) if one.ended_unix_seconds is None]
        assert len(lasting) == len(set(lasting))


@pytest.mark.parametrize(
    ("status", "result"),
    [(200, Result.DELIVERED), (202, Result.DELIVERED), (204, Result.DELIVERED)]
    + [(status, Result.FAILED) for status in (408, 425, 429, 500, 502, 503, 599)]
    + [(status, Result.REFUSED) for status in (301, 400, 401, 403, 404, 413, 422)],
)
def test_a_status_says_whether_the_same_again_is_of_use(status, result):
    assert judged(status, Headers(), "", 0.0).result is result


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("", 0.0),
        ("-3", 0.0),
        ("soon", 0.0),
        ("999999", 3600.0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_when_to_come_back_is_seconds_or_a_date_within_an_hour(text, seconds):
    assert judged(503, Headers({"retry-after": text}), "", 100.0).retry_after_seconds == seconds


@given(st.integers(1, 2000), st.integers(0, 2**32))
def test_waits_double_up_to_the_limit_and_are_spread(failures, seed):
    wait = wait_seconds(failures, 1.0, 60.0, random.Random(seed))
    longest = min(2.0 ** min(failures - 1, 30), 60.0)
    assert longest / 2 <= wait <= longest


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"timeout_seconds": -1}, r"notify\.timeout_seconds must be > 0, got -1"),
        ({"queue_limit": 0}, r"notify\.queue_limit must be > 0, got 0"),
        (
            {"retry_limit_seconds": 0.5},
            r"notify\.retry_limit_seconds must be >= retry_seconds = 1\.0, got 0\.5",
        ),
        ({"alertmanagers": ("am:9093",)}, r"notify\.alertmanagers must be http.*got 'am:9093'"),
        ({"webhooks": ("file:///etc/passwd",)}, r"notify\.webhooks must be http"),
        ({"webhooks": ("http://a", "http://a")}, r"notify names an address twice.*name each once"),
        ({"webhooks": ("http://a",), "alertmanagers": ("http://a",)}, "names an address twice"),
        ({"webhooks": ("http://[::1",)}, r"notify\.webhooks must be http"),
        ({"webhooks": ("http://a:99999999",)}, r"notify\.webhooks must be http"),
        (
            {"webhook_headers": {"x-team": "a\r\nb"}},
            r"notify\.webhook_headers.'x-team' must be printable ASCII",
        ),
    ],
)
def test_a_bad_setting_is_refused_with_key_value_and_remedy(setting, message):
    with pytest.raises(ValueError, match=message):
        NotifySettings(**setting)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="use a token file") as error:
        NotifySettings(webhooks=("https://user:hunter2@example",))
    assert "hunter2" not in str(error.value)


def test_a_certificate_authority_that_cannot_be_read_is_refused_by_key(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "none.pem", tmp_path / "ca.pem"):
        settings = NotifySettings(webhooks=("https://example",), webhook_ca_file=path)
        with pytest.raises(ValueError, match=r"notify\.webhook_ca_file = .* give certificates in PEM"):
            Notifier(tmp_path / "data", settings)
