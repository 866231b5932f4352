"""Letters in, signed JSON documents out: one call a change of an incident."""

import hashlib
import hmac
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from introspan_collector.notice import Notice
from introspan_collector.notify.delivery import Call, Outcome, Result
from introspan_collector.notify.letter import Letter

SIGNATURE_HEADER = "x-introspan-signature"
"""sha256=HMAC of the body, in hexadecimal, with the content of webhook_secret_file as the key."""
DELIVERY_HEADER = "idempotency-key"
"""The same for the same document: a call whose answer was lost is repeated."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of JSON, told once of every state of an incident that it can be told of in time."""

    url: str
    call: Call
    secret_file: Path | None = None
    batch: int = 1
    resend_seconds: float = math.inf

    def key(self, notice: Notice) -> str:
        """One alert for each incident."""
        return notice.incident

    def body(self, letter: Letter) -> bytes:
        """The document: what a person is told, and below `incident` everything that is known."""
        notice = letter.notice
        document = {
            "version": 1,
            "status": "resolved" if letter.over else "firing",
            "labels": dict(notice.labels),
            "annotations": dict(notice.annotations),
            "started_unix_seconds": notice.started_unix_seconds,
            "updated_unix_seconds": notice.updated_unix_seconds,
            "ended_unix_seconds": notice.ended_unix_seconds,
            "incident": json.loads(notice.details),
        }
        return json.dumps(document, sort_keys=True).encode()

    async def send(
        self,
        client: httpx.AsyncClient,
        letters: Sequence[Letter],
        now_unix_seconds: float,
    ) -> Outcome:
        """Tells the receiver of the one letter."""
        (letter,) = letters
        body = self.body(letter)
        headers = {DELIVERY_HEADER: hashlib.sha256(body).hexdigest()[:32]}
        if self.secret_file is not None:
            try:
                secret = self.secret_file.read_bytes().strip()
            except OSError as error:
                return Outcome(Result.FAILED, "file_unreadable", str(error))
            headers[SIGNATURE_HEADER] = "sha256=" + hmac.digest(secret, body, "sha256").hex()
        return await self.call.post(client, self.url, body, headers, now_unix_seconds)
