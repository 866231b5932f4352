"""What a dashboard is asked to show: where metrics and traces are, and which models, adapters and replicas."""

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard

from deploy.grafana.queries import PROMETHEUS

Variable = Builder[dashboard.VariableModel]

MODEL = 'model="$model"'
MODELS = 'model=~"$model"'
REPLICAS = 'replica=~"$replica"'
ADAPTERS = 'adapter=~"$adapter"'
INSTANCES = 'instance=~"$instance"'

_ALL = dashboard.VariableOption(selected=True, text=["All"], value=["$__all"])


def datasource() -> Variable:
    """The Prometheus that scrapes the collector; Grafana takes its default one."""
    return build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def traces() -> Variable:
    """Where traces are."""
    return build.DatasourceVariable("traces").label("Traces").type("tempo")


def trace_id() -> Variable:
    """A trace that somebody was told of."""
    return build.TextBoxVariable("trace_id").label("Trace id").default_value("")


def model() -> Variable:
    """One model."""
    found = _values("model", "Model", "label_values(introspan_segments_total, model)")
    return found.description("As the served model is called.")


def models() -> Variable:
    """Some models, or all."""
    found = _values("model", "Models", "label_values(introspan_segments_total, model)")
    return found.multi(True).include_all(True).all_value(".*").current(_ALL)


def replicas(of: str) -> Variable:
    """Some replicas of the models that are chosen, or all."""
    found = _values("replica", "Replicas", f"label_values(introspan_segments_total{{{of}}}, replica)")
    return found.multi(True).include_all(True).all_value(".*").current(_ALL)


def adapters(of: str) -> Variable:
    """Some adapters, or all; requests without one have an empty label, which only All finds."""
    found = _values("adapter", "Adapters", f"label_values(introspan_reference_state{{{of}}}, adapter)")
    return found.multi(True).include_all(True).all_value(".*").current(_ALL)


def instances() -> Variable:
    """Some collectors, or all."""
    found = _values(
        "instance", "Collectors", "label_values(introspan_collector_accepted_batches_total, instance)"
    )
    return found.multi(True).include_all(True).all_value(".*").current(_ALL)


def past() -> Variable:
    """How much of its own past a layer is compared with."""
    found = build.CustomVariable("past").label("Compared with the last").values("1h,6h,1d,7d")
    return found.current(dashboard.VariableOption(selected=True, text="6h", value="6h"))


def _values(name: str, label: str, query: str) -> build.QueryVariable:
    found = build.QueryVariable(name).label(label).datasource(PROMETHEUS).query(query)
    # The form in which Grafana's own editor writes it; a bare string is migrated to it at every load.
    found.query({"qryType": 1, "query": query, "refId": f"{name}-values"})
    return found.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(
        dashboard.VariableSort.ALPHABETICAL_ASC
    )
