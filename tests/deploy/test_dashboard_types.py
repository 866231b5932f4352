"""The dashboards' JSON against Grafana's own types, by the TypeScript compiler."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.boards import BOARDS, panels

HERE = Path(__file__).parent
NODE = Path(sys.executable).parents[1] / "node" / "node_modules"
PACKAGES = json.loads((HERE / "package.json").read_text())["dependencies"]


def compiled(folder, boards):
    """What the compiler says of dashboards: "" for nothing."""
    compiler = NODE / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        pytest.fail("typescript and @grafana/schema are not installed: run make components", pytrace=False)
    (folder / "types.ts").write_text((HERE / "dashboard_types.ts").read_text())
    for name, board in boards.items():
        text = json.dumps(board, indent=1)
        (folder / f"{name}.ts").write_text(
            f"import type {{ BoardJson }} from './types';\nexport const board: BoardJson = {text};\n"
        )
    options = {
        "strict": True,
        "noEmit": True,
        "skipLibCheck": True,
        "module": "preserve",
        "moduleResolution": "bundler",
        "types": [],
        "lib": ["es2022", "dom"],
        "paths": {
            "@grafana/schema/dist/*": [f"{NODE}/@grafana/schema/dist/*"],
            "@grafana/schema": [f"{NODE}/@grafana/schema/dist/esm/index.d.ts"],
        },
    }
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["*.ts"]}))
    done = subprocess.run(
        ["node", compiler, "--pretty", "false"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_types_are_of_the_version_that_is_pinned():
    for name, version in PACKAGES.items():
        assert json.loads((NODE / name / "package.json").read_text())["version"] == version


FAULTS = {
    "tooltip": lambda board: board.update(graphTooltip="crosshair"),
    "unit": lambda board: _first(board, "stat")["fieldConfig"]["defaults"].update(unit=7),
    "scheme": lambda board: _first(board, "heatmap")["options"]["color"].update(scheme=3),
    "mode": lambda board: _first(board, "heatmap")["options"]["color"].update(mode="colourful"),
    "option": lambda board: _first(board, "heatmap")["options"].update(colour={}),
    "lines": lambda board: _first(board, "timeseries")["fieldConfig"]["defaults"]["custom"].update(
        lineWidth="2"
    ),
    "query": lambda board: _first(board, "timeseries")["targets"][0].update(expr=None),
    "variable": lambda board: board["templating"]["list"][0].update(refresh="often"),
    "mark": lambda board: board["annotations"]["list"][0].update(iconColor=None),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the compiler says, by file: of every dashboard, and of copies of one with one fault each."""
    boards = dict(BOARDS)
    for name, break_it in FAULTS.items():
        board = _small(BOARDS["introspan-internals"])
        break_it(board)
        boards[name] = board
    found: dict[str, list[str]] = {}
    for line in compiled(tmp_path_factory.mktemp("types"), boards).splitlines():
        found.setdefault(line.partition(".ts(")[0], []).append(line)
    return found


@pytest.mark.parametrize("uid", BOARDS)
def test_a_dashboard_is_what_grafana_takes(uid, said):
    assert uid not in said, said[uid]


def test_what_grafana_would_not_take_is_seen_and_nothing_else_is_said(said):
    assert {name.strip() for name in said if not name.startswith(" ")} - set(BOARDS) == set(FAULTS)


def _small(board):
    """The same dashboard with one panel of each kind."""
    kinds = {panel["type"]: panel for panel in board["panels"]}
    return json.loads(json.dumps({**board, "panels": list(kinds.values())}))


def _first(board, kind):
    return next(panel for panel in panels(board) if panel["type"] == kind)
