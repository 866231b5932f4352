"""The log on real disks, its sequences and cursors."""

import pytest

from introspan_collector.log.cursor import Cursor, DamagedCursorError, load_cursor, save_cursor
from introspan_collector.log.files import Disk
from introspan_collector.log.segment import segment_name
from introspan_collector.log.sequences import Sequences
from tests.logs import A, B, open_log, read_all, record


def test_sequences_survive_a_restart_and_forget_the_producer_silent_longest():
    sequences = Sequences(2)
    for producer in (A, B, A, b"c" * 16):
        sequences.advance(producer, 5)
    assert sequences.seen(A, 5)
    assert not sequences.seen(B, 5)
    assert sequences.evicted == 1


def test_a_damaged_cursor_is_reported(tmp_path):
    disk = Disk(tmp_path)
    assert load_cursor(disk, "aggregate") is None
    save_cursor(disk, "aggregate", Cursor(77, b"state"))
    assert load_cursor(disk, "aggregate") == Cursor(77, b"state")
    content = bytearray((tmp_path / "aggregate").read_bytes())
    content[-1] ^= 1
    (tmp_path / "aggregate").write_bytes(content)
    with pytest.raises(DamagedCursorError, match="aggregate fails its checksum"):
        load_cursor(disk, "aggregate")


def test_a_reader_of_a_real_disk_can_neither_write_nor_create_anything(tmp_path):
    log, _ = open_log(Disk(tmp_path / "log"))
    log.append([record(A, 1)])
    log.close()
    disk = Disk(tmp_path / "log", read_only=True)
    assert read_all(disk, log.end)[0] == [(A, 1)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.write(segment_name(0), 0, b"x")
    Disk(tmp_path / "missing", read_only=True)
    assert not (tmp_path / "missing").exists()


def test_the_log_on_a_real_disk_survives_being_cut_anywhere(tmp_path):
    disk = Disk(tmp_path / "whole")
    log, _ = open_log(disk)
    ends = []
    for sequence in range(1, 4):
        log.append([record(A, sequence, b"p" * sequence)])
        ends.append(log.end)
    log.close()
    content = (tmp_path / "whole" / segment_name(0)).read_bytes()
    for cut in range(len(content) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / segment_name(0)).write_bytes(content[:cut])
        disk = Disk(folder)
        log, _ = open_log(disk)
        whole = sum(end <= cut for end in ends)
        assert read_all(disk, log.end)[0] == [(A, sequence) for sequence in range(1, whole + 1)]
        assert log.torn_bytes == cut - log.end
        log.close()
