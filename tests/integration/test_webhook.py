"""Incidents are told to a real HTTP server that fails, waits, refuses and dawdles."""

import contextlib
import hashlib
import hmac
import socket
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate

import pytest

from introspan_collector.detect.incident.announcement import notice
from introspan_collector.detect.incident.finding import Copy, Subject
from introspan_collector.detect.incident.incidents import Incidents
from introspan_collector.detect.incident.reconsider import CanaryReport
from introspan_collector.detect.incident.triage import Canary
from introspan_collector.notice import Links
from introspan_collector.notify.notifier import Notifier
from introspan_collector.notify.settings import NotifySettings
from tests.incidents import finding, stream
from tests.patience import eventually
from tests.receiver import receiving

M = Subject("m", "")
OUTSIDE = stream("classes", side="outside")


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


@contextmanager
def notifying(directory, *urls, **settings):
    patient = {"retry_seconds": 0.05, "retry_limit_seconds": 0.2}
    notifier = Notifier(directory, NotifySettings(webhooks=urls, **patient | settings))
    notifier.start()
    try:
        yield notifier
    finally:
        notifier.stop(5.0)


def opened(book, *streams, **fields):
    opened = book.take(finding(*(streams or (OUTSIDE,)), **fields), time.time())[0].incident
    return notice(opened, Links("runbook"))


def over(book):
    return notice(book.recovered(M, time.time())[0].incident, Links("runbook"))


def delivered(notifier):
    return sum(notifier.stats().delivered.values())


def test_a_receiver_is_told_of_the_beginning_the_triage_and_the_end_once_each(tmp_path, receiver):
    book = Incidents()
    with notifying(tmp_path, f"{receiver.url}/hook?team=1") as notifier:
        notifier.put(opened(book))
        eventually(lambda: delivered(notifier) == 1)
        heard = book.hear(CanaryReport("m", "r0", Canary.STILL, time.time()), time.time())[0].incident
        notifier.put(notice(heard, Links("runbook")))
        eventually(lambda: delivered(notifier) == 2)
        notifier.put(over(book))
        eventually(lambda: delivered(notifier) == 3)
        assert notifier.stats().waiting == {f"{receiver.url}/hook?team=1": 0}
    assert [call.path for call in receiver.calls] == ["/hook?team=1"] * 3
    documents = receiver.documents()
    assert [one["status"] for one in documents] == ["firing", "firing", "resolved"]
    assert [one["incident"]["triage"]["verdict"] for one in documents] == ["pending", "traffic", "traffic"]
    assert documents[0]["labels"]["alertname"] == "IntrospanTrafficShifted"
    assert documents[0]["annotations"]["runbook_url"] == "runbook#introspantrafficshifted"
    assert documents[2]["ended_unix_seconds"] >= documents[2]["started_unix_seconds"]
    assert len({call.headers["idempotency-key"] for call in receiver.calls}) == 3


def test_a_receiver_that_fails_first_is_told_the_same_again(tmp_path, receiver):
    receiver.answers = [(503, {}, 0.0), (500, {}, 0.0), (429, {}, 0.0)]
    with notifying(tmp_path, receiver.url) as notifier:
        notifier.put(opened(Incidents()))
        eventually(lambda: delivered(notifier) == 1)
        assert {reason: n for (_, reason), n in notifier.stats().failed.items()} == {
            "http_503": 1,
            "http_500": 1,
            "http_429": 1,
        }
    assert len(receiver.calls) == 4
    assert len({(call.body, call.headers["idempotency-key"]) for call in receiver.calls}) == 1


@pytest.mark.parametrize("as_date", [False, True])
def test_a_receiver_that_says_when_to_come_back_is_not_called_before(tmp_path, receiver, as_date):
    text = formatdate(time.time() + 3.0, usegmt=True) if as_date else "1"
    receiver.answers = [(429, {"retry-after": text}, 0.0)]
    book = Incidents()
    with notifying(tmp_path, receiver.url) as notifier:
        notifier.put(opened(book))
        eventually(lambda: receiver.calls)
        notifier.put(opened(book, stream("drift")))
        eventually(lambda: delivered(notifier) == 1)
    # A date has whole seconds: of the three, at least two were left when it was written.
    assert receiver.calls[1].time - receiver.calls[0].time >= 0.9
    assert len(receiver.documents()[1]["incident"]["evidence"]) == 2, "it is told the newest when it can be"


def test_what_a_receiver_refuses_is_counted_and_not_sent_again_but_the_next_is(tmp_path, receiver):
    receiver.answers = [(400, {}, 0.0)]
    book = Incidents()
    with notifying(tmp_path, receiver.url) as notifier:
        notifier.put(opened(book))
        eventually(lambda: notifier.stats().dropped == {"http_400": 1})
        time.sleep(0.5)
        assert len(receiver.calls) == 1
        notifier.put(over(book))
        eventually(lambda: delivered(notifier) == 1)
    assert [one["status"] for one in receiver.documents()] == ["firing", "resolved"]


def test_a_redirect_is_not_followed(tmp_path, receiver):
    receiver.answers = [(307, {"location": f"{receiver.url}/elsewhere"}, 0.0)]
    with notifying(tmp_path, receiver.url) as notifier:
        notifier.put(opened(Incidents()))
        eventually(lambda: notifier.stats().dropped == {"http_307": 1})
    assert [call.path for call in receiver.calls] == ["/"]


def test_one_letter_that_always_fails_does_not_hold_up_the_others(tmp_path, receiver):
    receiver.answers = [(500, {}, 0.0)]
    book = Incidents()
    first, second = opened(book), opened(book, stream(adapter="lora"))
    with notifying(tmp_path, receiver.url, retry_seconds=1.0, retry_limit_seconds=1.0) as notifier:
        notifier.put(first)
        eventually(lambda: receiver.calls)
        notifier.put(second)
        eventually(lambda: delivered(notifier) == 2)
    adapters = [one["labels"].get("adapter", "") for one in receiver.documents()]
    assert adapters == ["", "lora", ""]


def test_a_body_is_signed_with_the_secret_and_the_token_is_sent(tmp_path, receiver):
    secret, token = tmp_path / "secret", tmp_path / "token"
    secret.write_text("key-1\n")
    token.write_text("bearer-1\n")
    files = {"webhook_secret_file": secret, "webhook_token_file": token, "webhook_headers": {"x-team": "a"}}
    book = Incidents()
    with notifying(tmp_path / "data", receiver.url, **files) as notifier:
        notifier.put(opened(book))
        eventually(lambda: delivered(notifier) == 1)
        secret.write_text("key-2\n")
        notifier.put(over(book))
        eventually(lambda: delivered(notifier) == 2)
    for call, key in zip(receiver.calls, (b"key-1", b"key-2"), strict=True):
        expected = hmac.new(key, call.body, hashlib.sha256).hexdigest()
        assert call.headers["x-introspan-signature"] == f"sha256={expected}"
        assert call.headers["authorization"] == "Bearer bearer-1"
        assert call.headers["x-team"] == "a"


@pytest.mark.parametrize("missing", ["webhook_secret_file", "webhook_token_file"])
def test_a_file_that_is_gone_delays_and_loses_nothing(tmp_path, receiver, missing):
    path = tmp_path / "file"
    with notifying(tmp_path / "data", receiver.url, **{missing: path}) as notifier:
        notifier.put(opened(Incidents()))
        eventually(lambda: notifier.stats().failed.get((receiver.url, "file_unreadable")))
        if missing == "webhook_token_file":
            path.write_bytes(b"\xff\xfe")
            eventually(lambda: notifier.stats().failed[receiver.url, "file_unreadable"] >= 3)
        path.write_text("found")
        eventually(lambda: delivered(notifier) == 1)


def test_a_server_that_answers_byte_by_byte_is_given_up_after_the_timeout(tmp_path):
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def dribble():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionError):  # the other side gives up
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not done.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=dribble, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with notifying(tmp_path, url, timeout_seconds=0.5) as notifier:
            began = time.monotonic()
            notifier.put(opened(Incidents()))
            eventually(lambda: notifier.stats().failed.get((url, "timeout")))
            assert time.monotonic() - began < 2.0
        done.set()


def test_a_stop_keeps_its_limit_and_what_was_not_told_is_told_after_the_next_start(tmp_path, receiver):
    receiver.answers = [(200, {}, 60.0)]
    settings = NotifySettings(webhooks=(receiver.url,), timeout_seconds=60.0)
    notifier = Notifier(tmp_path, settings)
    notifier.start()
    notifier.put(opened(Incidents(), copy=Copy.PAGE))
    eventually(lambda: receiver.calls)
    began = time.monotonic()
    notifier.stop(0.5)
    assert 0.4 < time.monotonic() - began < 2.0
    assert not notifier.alive
    with notifying(tmp_path, receiver.url) as again:
        eventually(lambda: delivered(again) == 1)
    assert receiver.calls[0].body == receiver.calls[1].body


def test_a_stop_tells_what_waits_first(tmp_path, receiver):
    notifier = Notifier(tmp_path, NotifySettings(webhooks=(receiver.url,)))
    notifier.start()
    notifier.put(opened(Incidents()))
    notifier.stop(5.0)
    assert len(receiver.calls) == 1


def test_a_target_that_was_added_is_told_of_what_is_open_and_one_that_knows_is_not(tmp_path, receiver):
    book = Incidents()
    with notifying(tmp_path, receiver.url) as notifier:
        notifier.put(opened(book))
        notifier.put(opened(Incidents(), stream(model="forgotten")))
        eventually(lambda: delivered(notifier) == 2)
    with receiving() as added, notifying(tmp_path, receiver.url, added.url, resend_seconds=0.2) as again:
        again.resume([notice(one, Links("runbook")) for one in book.open()])
        eventually(lambda: delivered(again) == 2)
        time.sleep(0.3)
        assert [(one["status"], one["labels"]["model"]) for one in added.documents()] == [("firing", "m")]
    assert [(one["status"], one["labels"]["model"]) for one in receiver.documents()] == [
        ("firing", "m"),
        ("firing", "forgotten"),
        ("resolved", "forgotten"),
    ]


def test_nobody_to_tell_is_no_thread_and_no_error(tmp_path):
    notifier = Notifier(tmp_path, NotifySettings())
    notifier.start()
    assert notifier.alive
    notifier.put(opened(Incidents()))
    notifier.stop(1.0)
    assert notifier.stats().waiting == {}
