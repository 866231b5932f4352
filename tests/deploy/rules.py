"""The files of rules in, alerts and what they ask for out; compact cases in, tests as promtool reads them out."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = tuple(sorted((DEPLOY / "prometheus" / "rules").glob("*.yml")))

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """Series, and which alerts of one name fire at which times, given as labels without alertname.

    interval: between samples, and between evaluations of the rules.
    """

    alert: str
    claim: str
    series: Mapping[str, str]
    fires: Mapping[str, Sequence[Labels]] = field(default_factory=dict)
    quiet: Sequence[str] = ()
    interval: str = "1m"

    def expected(self) -> dict[str, Sequence[Labels]]:
        """Every time that is looked at, in order."""
        found = {**self.fires, **dict.fromkeys(self.quiet, ())}
        return dict(sorted(found.items(), key=lambda item: seconds(item[0])))

    def resolves(self) -> set[str]:
        """Severities of what fires and later does not."""
        end = max((seconds(time) for time in self.quiet), default=-1)
        return {
            one["severity"] for time, alerts in self.fires.items() for one in alerts if seconds(time) < end
        }


def seconds(text: str) -> int:
    """A time as promtool has it: one number, one unit."""
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]


# Any: YAML, as it is.
def rules() -> Iterator[dict[str, Any]]:
    """Every rule of every file."""
    for file in FILES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    """Those that alert; a name may be there with several severities."""
    return [rule for rule in rules() if "alert" in rule]


def without_annotations(file: Path, folder: Path) -> Path:
    """A copy of a file: promtool wants every word of them in every case."""
    content = yaml.safe_load(file.read_text())
    for group in content["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    copy = folder / file.name
    copy.write_text(yaml.safe_dump(content))
    return copy


def promtool_test(program: Path, folder: Path, files: Sequence[Path], cases: Sequence[Case]) -> str:
    """What promtool says of cases under the rules of files; empty where everything is as expected."""
    paths = []
    for interval in sorted({case.interval for case in cases}):
        mine = [case for case in cases if case.interval == interval]
        content = {
            "rule_files": [str(file) for file in files],
            "evaluation_interval": interval,
            "tests": [_as_test(case) for case in mine],
        }
        path = folder / f"cases-{interval}.yml"
        path.write_text(yaml.safe_dump(content))
        paths.append(path)
    done = subprocess.run([program, "test", "rules", *paths], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _as_test(case: Case) -> dict[str, Any]:
    return {
        "name": f"{case.alert}: {case.claim}",
        "interval": case.interval,
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {
                "eval_time": time,
                "alertname": case.alert,
                "exp_alerts": [{"exp_labels": dict(labels)} for labels in expected],
            }
            for time, expected in case.expected().items()
        ],
    }
