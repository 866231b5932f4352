"""Where things are in, the collector's configuration for a demonstration out."""

from pathlib import Path

REFERENCE_CLUSTERS = 120
CANARY_ROUNDS = 4
SMALL = (
    f"limits are small for the demonstration: a reference from {REFERENCE_CLUSTERS} clusters of requests, a canary "
    f"from {CANARY_ROUNDS} rounds; in production 2,000 and a day, and 64"
)
"""Said on screen: nobody should take these figures for a recommendation."""

_TOML = """\
[detect]
tick_seconds = 1
provisional_clusters = {clusters}
{frozen}canary_rounds = {rounds}
quiet_seconds = 20
quiet_requests = 50

[canary]
endpoints = ["http://127.0.0.1:{port}"]
interval_seconds = 10
timeout_seconds = 60
key_file = "{key_file}"
"""
_FROZEN = f"frozen_clusters = {REFERENCE_CLUSTERS}\nfrozen_hours = 0\n"


def write(folder: Path, key_file: Path, model_port: int, *, is_building: bool = False) -> Path:
    """The configuration file, written into folder. is_building: everything is for one reference, frozen at the end."""
    # Once a reference is frozen, none is collected any more; in production that takes a day.
    frozen = "" if is_building else _FROZEN
    file = folder / "collector.toml"
    file.write_text(
        _TOML.format(
            clusters=REFERENCE_CLUSTERS,
            frozen=frozen,
            rounds=CANARY_ROUNDS,
            port=model_port,
            key_file=key_file,
        ),
        encoding="utf-8",
    )
    return file
