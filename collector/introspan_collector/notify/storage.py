"""Letters in, a SQLite file out, and back after a restart."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from introspan_collector.notice import Notice
from introspan_collector.notify.letter import Letter

_log = structlog.get_logger(__name__)

_NOTICE = TypeAdapter(Notice)
_REMEMBERED = 10_000
_TABLES = """
create table if not exists letters
    (target text, key text, notice blob, told integer, news integer, primary key (target, key));
create table if not exists finished
    (number integer primary key, target text, key text, incident text, unique (target, key, incident));
"""


class Storage:
    """What outlives the process: letters, and which alerts each target knows to be over.

    A disk that refuses is counted and logged once; what is in memory goes on.
    """

    def __init__(self, path: Path) -> None:
        self.errors: Counter[str] = Counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = _opened(path)
        except sqlite3.DatabaseError as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            for rest in ("-wal", "-shm"):  # they would be taken for those of the new file
                path.with_name(path.name + rest).unlink(missing_ok=True)
            self.errors["damaged"] += 1
            _log.error("file of notices is damaged and begun anew", moved_to=str(aside), error=str(error))
            self._database = _opened(path)

    def letters(self) -> Iterator[tuple[str, Letter]]:
        """Each letter with its target, in the order they were written, due at once."""
        asked = "select target, key, notice, told, news from letters order by rowid"
        for target, key, data, told, news in self._database.execute(asked).fetchall():
            try:
                notice = _NOTICE.validate_json(data)
            except ValidationError as error:
                if not self.errors["unreadable"]:
                    _log.error("a notice of another version is left out", key=key, fields=error.error_count())
                self.errors["unreadable"] += 1
                self.forget(target, key)
                continue
            yield target, Letter(key, notice, due=0.0, told=bool(told), news=bool(news))

    def finished(self, target: str, key: str, incident: str) -> bool:
        """Whether the target knows that this is over."""
        asked = "select 1 from finished where target = ? and key = ? and incident = ?"
        try:
            return self._database.execute(asked, (target, key, incident)).fetchone() is not None
        except sqlite3.Error as error:
            self._failed(error)
            return False

    def save(self, target: str, letter: Letter) -> None:
        """Keeps a letter, in place of the one with its key."""
        kept = (target, letter.key, _NOTICE.dump_json(letter.notice), letter.told, letter.news)
        self._write("insert or replace into letters values (?, ?, ?, ?, ?)", kept)

    def forget(self, target: str, key: str) -> None:
        """Drops a letter."""
        self._write("delete from letters where target = ? and key = ?", (target, key))

    def finish(self, target: str, letter: Letter) -> None:
        """Drops a letter that told of the end, and remembers that it did."""
        self.forget(target, letter.key)
        told = (target, letter.key, letter.notice.incident)
        self._write("insert or ignore into finished (target, key, incident) values (?, ?, ?)", told)
        oldest = "delete from finished where number <= (select max(number) from finished) - ?"
        self._write(oldest, (_REMEMBERED,))

    def commit(self) -> None:
        """Makes what was written last."""
        try:
            self._database.commit()
        except sqlite3.Error as error:
            self._failed(error)

    def close(self) -> None:
        """Ends the use of the file."""
        self._database.close()

    def _write(self, statement: str, values: tuple[str | bytes | int, ...]) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            self._failed(error)

    def _failed(self, error: sqlite3.Error) -> None:
        if not self.errors["not_saved"]:
            _log.error("notices cannot be saved; they would not survive a restart", error=str(error))
        self.errors["not_saved"] += 1


def _opened(path: Path) -> sqlite3.Connection:
    # Used by one thread at a time: the outbox holds its lock around every call.
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        # One write to disk for a notice instead of three; the thread that puts it waits for that.
        database.execute("pragma journal_mode = wal")
        database.executescript(_TABLES)
        (found,) = database.execute("pragma quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)  # noqa: TRY301 handled as the damage that opening finds itself
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database
