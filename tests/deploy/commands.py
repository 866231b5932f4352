"""A page of documentation in; the commands and files that it tells its readers to use out."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Every fenced block, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(language, text) for language, text in found]


def commands(page: Path) -> list[str]:
    """Every line of shell, and every command of ours that is named in a sentence."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    return lines + re.findall(r"`(introspan [^`]+)`", page.read_text())


def options(words: list[str]) -> dict[str, list[str]]:
    """Options and what follows each, up to the next one; what stands before them is under ""."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for word in words:
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            found.setdefault(name, []).extend([value] if equals else [])
        else:
            found[name].append(word)
    return found


def words(command: str) -> list[str]:
    """The words of a command, as a shell reads them."""
    return shlex.split(command)
