"""A program that is starting in, an answer on its health address out; a clear error where none comes."""

import asyncio
import time
from collections.abc import Callable

import httpx
from rich.console import Console

from demo.processes import DemoError, PortTakenError, Program

_LIMIT_SECONDS = 600.0
_POLL_SECONDS = 0.5
_SAY_EVERY_SECONDS = 15.0
_TAIL_LINES = 25
_TAKEN = ("address already in use", "cannot be bound")
"""What programs say that could not listen, in lower case: those in Python, and the collector."""


async def until_healthy(
    program: Program,
    address: str,
    tell: Callable[[float], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Returns once the address answers 200; tell hears meanwhile how long it takes. Raises as check_alive does."""
    began = clock()
    async with httpx.AsyncClient(timeout=5.0) as client:
        while not await _healthy(client, address):
            waited = clock() - began
            check_alive(program)
            if waited > _LIMIT_SECONDS:
                raise DemoError(_failure(program, f"did not answer on {address} in {waited:.0f} s"))
            tell(waited)
            await asyncio.sleep(_POLL_SECONDS)


async def until_shown_healthy(
    program: Program, address: str, console: Console, clock: Callable[[], float] = time.monotonic
) -> None:
    """The same on a console that nothing else is shown on. Raises DemoError."""
    began = clock()
    said = 0.0

    def tell(waited: float) -> None:
        nonlocal said
        line = f"starting {program.name}, {waited:.0f} s"
        status.update(f"{line}  [dim]{_last(program)}")
        if not console.is_terminal and waited - said >= _SAY_EVERY_SECONDS:
            said = waited
            console.print(line)

    with console.status("") as status:
        await until_healthy(program, address, tell, clock)
    console.print(f"{program.name} is ready after {clock() - began:.0f} s")


def check_alive(program: Program) -> None:
    """Raises DemoError with the end of the program's log when it has ended, PortTakenError where that was why."""
    if program.ended():
        failure = _failure(program, f"ended with exit code {program.process.returncode}")
        said = program.log_tail(_TAIL_LINES).lower()
        raise (PortTakenError if any(words in said for words in _TAKEN) else DemoError)(failure)


async def _healthy(client: httpx.AsyncClient, address: str) -> bool:
    try:
        return (await client.get(address)).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False  # not listening yet


def _failure(program: Program, what: str) -> str:
    return f"{program.log_tail(_TAIL_LINES)}\n\n{program.name} {what}; the end of its log is above"


def _last(program: Program) -> str:
    # Brackets would be read as markup.
    return program.log_tail(1)[:80].replace("[", "(")
