"""The JSON that Grafana reads in; its panels, queries, variables and annotations out, as tests look at them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
FILES = sorted((GRAFANA / "provisioning" / "dashboards" / "json").glob("*.json"))
BOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}

_LABEL_VALUES = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a panel or annotation. panel: as JSON, None for an annotation's; where names it in a failure."""

    where: str
    expression: str
    instant: bool = False
    exemplars: bool = False
    legend: str = ""
    panel: dict[str, Any] | None = None


# Any: JSON.
def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel, those of folded rows too, without the rows."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def asked(board: dict[str, Any]) -> Iterator[Asked]:
    """Every query of every panel."""
    for panel in panels(board):
        for target in panel.get("targets", ()):
            yield Asked(
                f"{board['uid']}: {panel['title']} {target['refId']}",
                target["expr"],
                target.get("instant", False),
                target.get("exemplar", False),
                target["legendFormat"],
                panel,
            )


def marks(board: dict[str, Any]) -> Iterator[Asked]:
    """Every query of an annotation; what its words name counts as a legend."""
    for one in board["annotations"]["list"]:
        words = one["titleFormat"] + one["textFormat"]
        yield Asked(f"{board['uid']}: {one['name']}", one["expr"], legend=words)


def queried(board: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, series and label of every variable that is asked of Prometheus."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert found, variable
            yield variable["name"], found["series"], found["label"]


def filled(expression: str, values: dict[str, str]) -> str:
    """An expression with its variables replaced; the names of those that are left are an error of the test's."""
    text = re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda found: values[found[1] or found[2]], expression)
    assert "$" not in text, text
    return text
