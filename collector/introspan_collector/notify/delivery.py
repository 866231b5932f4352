"""What a server answered in, what to do about it out."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path

import httpx

_LONGEST_WAIT_SECONDS = 3600.0
_LONGEST_DETAIL = 500
_RETRYABLE = frozenset({408, 425, 429})


class Result(StrEnum):
    """Delivered; refused, so that the same again is of no use; or failed, to be tried again."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call went. reason: one of few words, for counters; detail: for people."""

    result: Result
    reason: str = ""
    detail: str = ""
    retry_after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """How a target is called. The files are read for every call, so that they may be exchanged."""

    timeout_seconds: float
    token_file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    async def post(
        self,
        client: httpx.AsyncClient,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        now_unix_seconds: float,
    ) -> Outcome:
        """Sends a JSON document and says how it went."""
        try:
            sent = {"content-type": "application/json", **self._authorization(), **self.headers, **headers}
            # httpx limits each step: a server that answers byte by byte must not hold up the others' thread.
            async with (
                asyncio.timeout(self.timeout_seconds),
                client.stream("POST", url, content=body, headers=sent) as response,
            ):
                detail = await _beginning(response)
                return judged(response.status_code, response.headers, detail, now_unix_seconds)
        except (TimeoutError, httpx.TimeoutException) as error:
            return Outcome(Result.FAILED, "timeout", f"{type(error).__name__} after {self.timeout_seconds} s")
        except httpx.HTTPError as error:
            return Outcome(Result.FAILED, "unreachable", f"{type(error).__name__}: {error}")
        except (OSError, UnicodeError) as error:
            return Outcome(Result.FAILED, "file_unreadable", str(error))

    def _authorization(self) -> dict[str, str]:
        if self.token_file is None:
            return {}
        return {"authorization": f"Bearer {self.token_file.read_text(encoding='utf-8').strip()}"}


async def _beginning(response: httpx.Response) -> str:
    async for chunk in response.aiter_bytes(_LONGEST_DETAIL):
        return chunk.decode(errors="replace")
    return ""


def judged(status: int, headers: httpx.Headers, detail: str, now_unix_seconds: float) -> Outcome:
    """What a status means: 2xx is delivered, 5xx and 408, 425, 429 pass, others stay."""
    if 200 <= status < 300:
        return Outcome(Result.DELIVERED)
    said = f"{status}: {detail}"
    if status in _RETRYABLE or status >= 500:
        return Outcome(Result.FAILED, f"http_{status}", said, _retry_after(headers, now_unix_seconds))
    return Outcome(Result.REFUSED, f"http_{status}", said)


def _retry_after(headers: httpx.Headers, now_unix_seconds: float) -> float:
    text = headers.get("retry-after", "").strip()
    try:
        seconds = (
            float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - now_unix_seconds
        )
    except ValueError:
        return 0.0  # none, or neither a number nor a date: our own waiting applies
    return min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS)


def wait_seconds(failures: int, first_seconds: float, limit_seconds: float, chance: random.Random) -> float:
    """How long to wait after so many failures in a row: doubled each time, drawn from its upper half."""
    longest = min(first_seconds * 2.0 ** min(failures - 1, 30), limit_seconds)
    return longest * chance.uniform(0.5, 1.0)
