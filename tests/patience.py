"""Claims that come true in time in; what they say once they do, or why they did not, out."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import httpx
import pytest


class Running(Protocol):
    """A program that was started and may have ended since."""

    @property
    def name(self) -> str:
        """What people call it."""

    def ended(self) -> bool:
        """Whether it is gone."""

    def log_tail(self, lines: int) -> str:
        """The last lines that it printed."""


def eventually(claim: Callable[[], Any], within_seconds: float = 60.0, poll_seconds: float = 0.1) -> Any:
    """What claim returns, once that is true; its last failure if it never is."""
    until = time.monotonic() + within_seconds
    while True:
        try:
            value = claim()
        except (httpx.HTTPError, AssertionError):
            if time.monotonic() > until:
                raise
        else:
            if value:
                return value
            assert time.monotonic() < until, f"still {value!r} after {within_seconds} s"
        time.sleep(poll_seconds)


def until_answering(program: Running, address: str, within_seconds: float = 60.0) -> None:
    """Returns once a GET of the address gives 200; fails with what the program printed."""

    def answers() -> bool:
        if program.ended():
            pytest.fail(f"{program.name} ended:\n{program.log_tail(40)}", pytrace=False)
        return httpx.get(address, timeout=5).status_code == httpx.codes.OK

    try:
        eventually(answers, within_seconds)
    except (httpx.HTTPError, AssertionError) as error:
        pytest.fail(f"{program.name}: {error}\n{program.log_tail(40)}", pytrace=False)
