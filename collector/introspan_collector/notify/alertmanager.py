"""Letters in, alerts of the API v2 of Alertmanager out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from introspan_collector.notice import Notice
from introspan_collector.notify.delivery import Call, Outcome
from introspan_collector.notify.letter import Letter

_PATH = "/api/v2/alerts"
_MISSED_RESENDS = 4  # as Prometheus does: an alert ends by itself once so many were missed


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """One peer, told of every alert that lasts every resend_seconds, and of its end.

    An alert that ended before this peer could be told is sent as lasting late_seconds more, and says that it is over:
    Alertmanager tells nobody of one that it first hears of as resolved.
    """

    url: str
    call: Call
    resend_seconds: float
    late_seconds: float
    batch: int = 64

    def key(self, notice: Notice) -> str:
        """An alert is its labels."""
        return notice.identity

    def body(self, letters: Sequence[Letter], now_unix_seconds: float) -> bytes:
        """The alerts of letters as JSON."""
        return json.dumps([self._alert(letter, now_unix_seconds) for letter in letters]).encode()

    async def send(
        self,
        client: httpx.AsyncClient,
        letters: Sequence[Letter],
        now_unix_seconds: float,
    ) -> Outcome:
        """Tells the peer of all of them in one call."""
        address = self.url.rstrip("/") + _PATH
        body = self.body(letters, now_unix_seconds)
        return await self.call.post(client, address, body, {}, now_unix_seconds)

    def _alert(self, letter: Letter, now_unix_seconds: float) -> dict[str, object]:
        notice = letter.notice
        annotations = dict(notice.annotations)
        ended = notice.ended_unix_seconds
        if ended is None:
            end = now_unix_seconds + self.resend_seconds * _MISSED_RESENDS
        elif letter.told:
            end = max(min(ended, now_unix_seconds), notice.started_unix_seconds)
        else:
            end = now_unix_seconds + self.late_seconds
            annotations["over_since"] = _rfc3339(ended)
        return {
            "labels": dict(notice.labels),
            "annotations": annotations,
            "startsAt": _rfc3339(notice.started_unix_seconds),
            "endsAt": _rfc3339(end),
        }


def _rfc3339(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds")
