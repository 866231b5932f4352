"""Notices in, what each target still has to be told out: bounded, one letter an alert, kept over restarts."""

import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from introspan_collector.notice import Notice, Severity
from introspan_collector.notify.letter import Letter
from introspan_collector.notify.storage import Storage


class Outbox:
    """Letters of each target. A newer notice of an alert takes the place of the one that waits.

    keys: for each target, what an alert is to it, as a function from a notice to a key; once: those targets that are
    not told again of what they know. Times are of the monotonic clock unless they say otherwise. Methods may be
    called from several threads.
    """

    def __init__(
        self,
        storage: Storage,
        keys: Mapping[str, Callable[[Notice], str]],
        limit: int,
        max_age_seconds: float,
        once: Collection[str] = (),
    ) -> None:
        self._storage = storage
        self._keys = keys
        self._limit = limit
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self.dropped: Counter[str] = Counter()
        self._letters: dict[str, dict[str, Letter]] = {target: {} for target in keys}
        with self._saving():
            for target, letter in storage.letters():
                if target in keys:
                    letter.due = math.inf if target in once and not letter.news else 0.0
                    self._letters[target][letter.key] = letter
                else:
                    storage.forget(target, letter.key)
                    self.dropped["target_removed"] += 1

    def put(self, notice: Notice, now: float) -> None:
        """Takes what is to be told."""
        with self._saving():
            for target, key_of in self._keys.items():
                key = key_of(notice)
                # Reading the log again after a crash gives again what was told long ago.
                if not self._storage.finished(target, key, notice.incident):
                    self._put(target, key, notice, now)

    def retain(self, subjects: Collection[str], now_unix_seconds: float, due: float) -> None:
        """Ends the alerts of every other subject, to be told when due unless they are put again before."""
        with self._saving():
            for target, letters in self._letters.items():
                for letter in list(letters.values()):
                    if letter.notice.subject not in subjects:
                        self._supersede(target, letter, now_unix_seconds, due)

    def due(self, target: str, now: float, now_unix_seconds: float, most: int) -> list[Letter]:
        """Copies of at most so many letters to send now, those first that failed least; old ones are given up."""
        with self._saving():
            letters = self._letters[target]
            for letter in list(letters.values()):
                age_seconds = now_unix_seconds - letter.notice.updated_unix_seconds
                if letter.over and age_seconds > self._max_age_seconds:
                    self._drop(target, letter, "expired")
            waiting = [letter for letter in letters.values() if letter.due <= now]
            waiting.sort(key=lambda letter: (letter.failures, letter.notice.updated_unix_seconds))
            for letter in waiting[:most]:
                letter.sent = True
            return [replace(letter) for letter in waiting[:most]]

    def next_due(self, target: str) -> float:
        """When there is something to send; infinite if nothing is."""
        with self._lock:
            return min((letter.due for letter in self._letters[target].values()), default=math.inf)

    def delivered(self, target: str, sent: Iterable[Letter], again: float) -> None:
        """The target was told; those that last are due again at that time."""
        with self._saving():
            for copy, letter in self._kept(target, sent):
                letter.failures = 0
                before = (letter.told, letter.news)
                letter.told = letter.told or not copy.over
                if letter.version == copy.version:  # otherwise there is something newer to tell
                    letter.due, letter.news = again, False
                    if letter.over:
                        del self._letters[target][letter.key]
                        self._storage.finish(target, letter)
                        continue
                if before != (letter.told, letter.news):
                    self._storage.save(target, letter)

    def failed(self, target: str, sent: Iterable[Letter]) -> None:
        """The target could not be told; others go first when it is tried again."""
        with self._lock:
            for _, letter in self._kept(target, sent):
                letter.failures += 1

    def refused(self, target: str, sent: Iterable[Letter], reason: str, again: float) -> None:
        """The target will not be told this: an end is given up, what lasts is due again at that time."""
        with self._saving():
            for copy, letter in self._kept(target, sent):
                if letter.version != copy.version:
                    continue
                letter.due = again
                self.dropped[reason] += 1
                if letter.over:
                    del self._letters[target][letter.key]
                    self._storage.forget(target, letter.key)

    def waiting(self) -> dict[str, int]:
        """Of each target, the alerts of which it does not know the newest."""
        with self._lock:
            return {
                target: sum(letter.news for letter in letters.values())
                for target, letters in self._letters.items()
            }

    @contextmanager
    def _saving(self) -> Iterator[None]:
        with self._lock:
            yield
            self._storage.commit()

    def _kept(self, target: str, sent: Iterable[Letter]) -> list[tuple[Letter, Letter]]:
        letters = self._letters[target]
        return [(copy, letters[copy.key]) for copy in sent if copy.key in letters]

    def _put(self, target: str, key: str, notice: Notice, now: float) -> None:
        letters = self._letters[target]
        for other in list(letters.values()):
            if other.notice.subject == notice.subject and other.key != key:
                self._supersede(target, other, notice.updated_unix_seconds, now)
        letter = letters.get(key)
        if letter is None:
            letter = letters[key] = Letter(key, notice, due=now)
        elif letter.notice == notice:
            return
        else:
            _renew(letter, notice, now)
        self._storage.save(target, letter)
        if len(letters) > self._limit:
            self._drop(target, min(letters.values(), key=_worth), "queue_full")

    def _supersede(self, target: str, letter: Letter, now_unix_seconds: float, due: float) -> None:
        if letter.over:
            return
        if not letter.told and not letter.sent:
            del self._letters[target][letter.key]
            self._storage.forget(target, letter.key)
            return
        letter.told = True  # or may be, by a call that is under way: to end what nobody knows does no harm
        ended = max(now_unix_seconds, letter.notice.started_unix_seconds)
        over = replace(letter.notice, ended_unix_seconds=ended, updated_unix_seconds=now_unix_seconds)
        _renew(letter, over, due)
        self._storage.save(target, letter)

    def _drop(self, target: str, letter: Letter, reason: str) -> None:
        del self._letters[target][letter.key]
        self._storage.forget(target, letter.key)
        self.dropped[reason] += 1


def _renew(letter: Letter, notice: Notice, due: float) -> None:
    letter.notice = notice
    letter.version += 1
    letter.news = True
    letter.due = due


def _worth(letter: Letter) -> tuple[bool, bool, float]:
    notice = letter.notice
    return notice.severity is Severity.CRITICAL, not letter.over, notice.updated_unix_seconds
