"""Queries in, marks on the time axis of every panel out: alarms, announced deploys, changes of what is served."""

from dataclasses import dataclass

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard

from deploy.grafana.look import BAD, PURPLE, SKY
from deploy.grafana.queries import PROMETHEUS, most, of


@dataclass(frozen=True, slots=True)
class Mark(Builder[dashboard.AnnotationQuery]):
    """A mark wherever the query has a value. title and text may hold {{label}}."""

    name: str
    expression: str
    title: str
    text: str
    tags: str
    colour: str

    def build(self) -> dashboard.AnnotationQuery:
        """The same as a dashboard holds it."""
        return _Worded(self)


class _Worded(dashboard.AnnotationQuery):
    """An annotation with its words, for which the SDK has no fields."""

    def __init__(self, mark: Mark) -> None:
        super().__init__(mark.name, PROMETHEUS, icon_color=mark.colour, expr=mark.expression)
        self._words = {"titleFormat": mark.title, "textFormat": mark.text, "tagKeys": mark.tags}

    def to_json(self) -> dict[str, object]:
        return super().to_json() | self._words


def marks(models: str) -> list[Mark]:
    """Alarms, announced deploys and changed engines of the models that a matcher names."""
    engine = "model, fingerprint, engine_version, dtype"
    served = of("introspan_sdk_info", models)
    return [
        Mark(
            "Alarms",
            f"{most('model, adapter, severity', of('introspan_alarm_active', models))} == 1",
            "{{severity}}: {{model}} {{adapter}}",
            "An incident is open or acknowledged.",
            "model,severity",
            BAD,
        ),
        Mark(
            "Announced deploys",
            f"{most('model', of('introspan_maintenance_active', models))} == 1",
            "Announced deploy of {{model}}",
            "Incidents that begin now are recorded, and nobody is told unless they outlast it.",
            "model",
            SKY,
        ),
        Mark(
            "Model or engine changed",
            f"count by ({engine}) ({served}) unless count by ({engine}) ({served} offset 5m)",
            "{{model}}: {{fingerprint}}",
            "Engine {{engine_version}}, {{dtype}}: not served five minutes before.",
            "model,engine_version",
            PURPLE,
        ),
    ]
