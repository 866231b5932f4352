"""A time in, an archive with a day of one-minute rollups of a large fleet out, by the archive's own writer."""

from dataclasses import fields, replace

import duckdb
import numpy as np

from bench.fleet import Shape, batch, origin, schema, table
from introspan_collector.archive.archive import Archive
from introspan_collector.archive.compaction import FORMAT, ORDER
from introspan_collector.archive.files import hour_of, part_path, write_whole
from introspan_collector.archive.part import Segments
from introspan_collector.archive.rollups import write_rollups
from introspan_collector.archive.schemas import quoted
from introspan_wire.codec import Schema

MODELS = 100
LAYERS = tuple(range(32))
HOURS = 24
_MINUTE_NANO = 60_000_000_000
_HOUR_NANO = 60 * _MINUTE_NANO
_FIRST_OFFSET = 1_000_000_000


def model_name(number):
    return f"acme/model-{number:03d}-instruct"


EVERYTHING = ("",)
"""Every signal that there is."""


def write_day(folder, now_unix_nano, families=EVERYTHING):
    """Signals whose names begin so, each at all layers that it has.

    Rollups of every minute of the hours before this one, and one observation part that the cursor stands on.

    One hour is written from 6,000 batches, the others are the same with their minutes moved.
    """
    this_hour = now_unix_nano // _HOUR_NANO * _HOUR_NANO
    newest = this_hour - _HOUR_NANO
    rollups = folder / "rollups"
    _last_part(folder, newest)
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        first = part_path(rollups, hour_of(newest), *_offsets(HOURS - 1))
        segments = list(_hour(newest, families))
        write_whole(first, lambda to: write_rollups(connection, segments, to))
        source, order = first, f"ORDER BY {ORDER}"  # as hours are once they are joined
        for back in range(1, HOURS):
            hour = newest - back * _HOUR_NANO
            moved = f"""
                SELECT * REPLACE (minute_unix_seconds - 3600 AS minute_unix_seconds)
                FROM read_parquet('{quoted(source)}') {order}
            """
            path = part_path(rollups, hour_of(hour), *_offsets(HOURS - 1 - back))
            write_whole(
                path, lambda to, of=moved: connection.execute(f"COPY ({of}) TO '{quoted(to)}' ({FORMAT})")
            )
            source, order = path, ""


def _offsets(hour):
    return _FIRST_OFFSET + hour * 1000, _FIRST_OFFSET + (hour + 1) * 1000


def _hour(start, families):
    every = schema(Shape(LAYERS, LAYERS, (), heads=1))
    chosen = [column for column in every.columns if column.signal.startswith(tuple(families))]
    of, rng = Schema(every.kind, tuple(chosen)), np.random.default_rng(0)
    # All at once: a table of one row takes as long to make up.
    rows = table(of, 60 * MODELS, rng)
    who = [origin(model_name(number)) for number in range(MODELS)]
    for number in range(60 * MODELS):
        row, received = _row(rows, number), start + number // MODELS * _MINUTE_NANO
        yield Segments(batch(row, who=who[number % MODELS], received_unix_nano=received), row)


def _row(rows, number):
    """One of a table as a table."""
    columns = (field.name for field in fields(rows) if field.name != "schema")
    return replace(rows, **{name: getattr(rows, name)[number : number + 1] for name in columns})


def _last_part(folder, newest):
    """Without it the collector would take rollups for the remains of a crash, and delete them."""
    of = table(schema(Shape((0,), (0,), (0,), heads=1)), 1, np.random.default_rng(1), time_unix_nano=newest)
    archive = Archive(folder, clock_unix_nano=lambda: newest + _HOUR_NANO)
    number = (_FIRST_OFFSET + HOURS * 1000) // 1000
    archive.consume(batch(of, who=origin(model_name(0)), number=number, received_unix_nano=newest))
    archive.flush()
