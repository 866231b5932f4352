"""Dashboards in, the JSON that Grafana reads out; `--check` compares instead."""

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.dashboards.collector import page as collector
from deploy.grafana.dashboards.fleet import page as fleet
from deploy.grafana.dashboards.internals import page as internals
from deploy.grafana.dashboards.requests import page as requests

FOLDER = Path(__file__).parent / "provisioning" / "dashboards" / "json"

PAGES = (fleet.PAGE, internals.PAGE, requests.PAGE, collector.PAGE)


def files() -> dict[Path, str]:
    """Every file, and what it should hold."""
    encoder = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return {FOLDER / f"{page.uid}.json": f"{encoder.encode(page.dashboard())}\n" for page in PAGES}


def main() -> int:
    """0 if all is written, or, with --check, is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail if a file is not as it should be"
    )
    check = parser.parse_args().check
    wanted = files()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    left_over = sorted(set(FOLDER.glob("*.json")) - set(wanted))
    if check:
        for path in (*stale, *left_over):
            print(f"{path.relative_to(Path.cwd())} is stale: run make dashboards", file=sys.stderr)
        return int(bool(stale or left_over))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(wanted[path])
    for path in left_over:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
