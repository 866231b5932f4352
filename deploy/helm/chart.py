"""Rules, dashboards and settings in, what the chart has to hold of them out; `--check` compares instead.

Helm reads nothing outside a chart's folder, and `helm package` does not follow symbolic links: so they are copies,
committed, and stale ones fail `make lint`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from introspan_collector.config import Settings

_DEPLOY = Path(__file__).parents[1]
_CHART = _DEPLOY / "helm" / "introspan"
_SCHEMA = _CHART / "values.schema.json"
_COPIED = (
    ("prometheus/rules", "*.yml", "files/rules"),
    ("grafana/provisioning/dashboards/json", "*.json", "files/dashboards"),
)
# What the chart sets by itself; another value would contradict a mount, a port or a limit of the pod.
_OWN = {
    "Settings": ("data", "grpc", "http"),
    "AcceptSettings": ("max_resident_bytes",),
    "NotifySettings": ("runbook_url", "grafana_url"),
}

# Any: JSON Schema.
Schema = dict[str, Any]


def files() -> dict[Path, str]:
    """Every file that is made, and what it should say."""
    copies = {
        _CHART / folder / source.name: source.read_text(encoding="utf-8")
        for origin, pattern, folder in _COPIED
        for source in sorted((_DEPLOY / origin).glob(pattern))
    }
    return {**copies, _SCHEMA: values_schema(_SCHEMA.read_text(encoding="utf-8"))}


def values_schema(text: str) -> str:
    """The chart's schema with `$defs` as the collector's settings want them; the rest of it is written by hand."""
    schema = json.loads(text)
    schema["$defs"] = _definitions(Settings.model_json_schema())
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _definitions(settings: Schema) -> Schema:
    """Each section as an object that takes nothing unknown, without what the chart decides."""
    sections = settings.pop("$defs")
    kept = {name: _section(name, section) for name, section in {**sections, "Settings": settings}.items()}
    return dict(sorted(kept.items()))


def _section(name: str, section: Schema) -> Schema:
    given = {
        key: _without_default(value)
        for key, value in section["properties"].items()
        if key not in _OWN.get(name, ()) and not key.endswith("_file")
    }
    return {"type": "object", "additionalProperties": False, "properties": given}


def _without_default(value: Schema) -> Schema:
    return {key: part for key, part in value.items() if key not in ("default", "title")}


def _surplus(wanted: dict[Path, str]) -> Iterator[Path]:
    for _, pattern, folder in _COPIED:
        yield from (path for path in (_CHART / folder).glob(pattern) if path not in wanted)


def main(say: Callable[[str], None] = print) -> int:
    """Writes the files, or with --check names the stale ones and exits with 1."""
    parser = argparse.ArgumentParser(prog="python -m deploy.helm.chart")
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    wanted = files()
    stale = [
        path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    surplus = list(_surplus(wanted))
    if check:
        for path in (*stale, *surplus):
            say(f"{path.relative_to(_DEPLOY.parent)} is stale: run make chart")
        return 1 if stale or surplus else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
    for path in surplus:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
