"""Where things are in, the collector's configuration for a demonstration out."""

from pathlib import Path

PROVISIONAL_CLUSTERS = 120
CANARY_ROUNDS = 4
SMALL = (
    f"limits are small for the demonstration: a reference from {PROVISIONAL_CLUSTERS} clusters of requests, a canary "
    f"from {CANARY_ROUNDS} rounds; in production 2,000, a day and 64"
)
"""Said on screen: nobody should take these figures for a recommendation."""

_TOML = """\
[detect]
tick_seconds = 2
provisional_clusters = {clusters}
canary_rounds = {rounds}
quiet_seconds = 20
quiet_requests = 50

[canary]
endpoints = ["http://127.0.0.1:{port}"]
interval_seconds = 10
key_file = "{key_file}"
"""


def write(folder: Path, key_file: Path, model_port: int) -> Path:
    """The configuration file, written into folder."""
    file = folder / "collector.toml"
    file.write_text(
        _TOML.format(clusters=PROVISIONAL_CLUSTERS, rounds=CANARY_ROUNDS, port=model_port, key_file=key_file),
        encoding="utf-8",
    )
    return file
