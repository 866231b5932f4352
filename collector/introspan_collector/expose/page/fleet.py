"""Sources in, every model and adapter with its state out: what is the matter first."""

import time
from typing import Any

from introspan_collector.expose.page.evidence import levels
from introspan_collector.expose.parameters import Parameters
from introspan_collector.expose.sources import Answer, Sources
from introspan_collector.view import OVERFLOW, Worker

MOST_ROWS = 500
_MOST_INSTANCES = 50
_SEVERITIES = ("critical", "warning")
_SILENT_SECONDS = 120.0

# Any: JSON.
_BySubject = dict[tuple[str, str], Any]


def content(sources: Sources, _: Parameters) -> Answer:
    """A row for each model and each of its adapters, those with incidents first."""
    by_model: dict[str, list[Worker]] = {}
    for worker in sources.aggregates.workers():
        by_model.setdefault(worker.origin.model, []).append(worker)
    references = {(one["model"], one["adapter"]): one for one in sources.detection.references()}
    open_incidents: dict[tuple[str, str], list[Answer]] = {}
    for one in sources.detection.alarms():
        if one["state"] != "resolved":
            open_incidents.setdefault((one["model"], one["adapter"]), []).append(one)
    evidence = levels(sources.detection.detection())
    canaries = {one["model"]: canary_state(one) for one in sources.detection.canaries()}
    subjects = {(model, "") for model in by_model} | references.keys() | open_incidents.keys()
    now = time.time()
    rows = [
        {
            "model": model,
            "adapter": adapter,
            "incidents": open_incidents.get((model, adapter), []),
            "severity": severity(open_incidents.get((model, adapter), [])),
            "reference": warm_up(references.get((model, adapter))),
            "evidence": evidence.get((model, adapter), []),
            "canary": canaries.get(model, "absent") if not adapter else None,
            **_workers(by_model.get(model, []), now),
        }
        for model, adapter in subjects
        if model != OVERFLOW
    ]
    rows.sort(key=lambda row: (_rank(row), row["model"], row["adapter"]))
    return {
        "title": "Fleet",
        "rows": rows[:MOST_ROWS],
        "left_out": max(len(rows) - MOST_ROWS, 0),
        "models": len({row["model"] for row in rows}),
        "replicas": sum(row["replicas"] for row in rows if not row["adapter"]),
        "warming": sum(row["reference"]["state"] in ("none", "provisional") for row in rows),
        "silent": sum(row["is_silent"] for row in rows),
    }


def severity(incidents: list[Answer]) -> str:
    """The worst of incidents, "" for none."""
    return next((level for level in _SEVERITIES if any(one["severity"] == level for one in incidents)), "")


def canary_state(canary: Answer) -> str:
    """How a model's canary stands, as a key of STATES."""
    differs = any(one.get("deviates") for one in canary["replicas"])
    if canary["state"] == "none":
        return "absent"
    return "equivalent" if canary["state"] == "still" and differs else str(canary["state"])


def warm_up(reference: Answer | None) -> Answer:
    """How far a reference is: its state, and clusters and hours of those that a frozen one needs."""
    if reference is None:
        return {"state": "unwatched", "building": None}
    building = reference["building"][-1] if reference["building"] else None
    return {"state": reference["state"], "building": building}


def _workers(workers: list[Worker], now: float) -> Answer:
    last = max((worker.last_seen_unix_nano for worker in workers), default=0) / 1e9
    shares = [worker.status.sampling_probability for worker in workers if worker.status is not None]
    return {
        "replicas": len({worker.origin.replica for worker in workers}),
        "last_seen": last or None,
        "is_silent": bool(last) and now - last > _SILENT_SECONDS,
        "sampling": min(shares, default=None),
        "disabled": _disabled(workers),
        "instances": _instances(workers, now)[:_MOST_INSTANCES],
    }


def _instances(workers: list[Worker], now: float) -> list[Answer]:
    """The replicas of a model, each with what its workers say together, the one that was silent longest first."""
    by_replica: dict[str, list[Worker]] = {}
    for worker in workers:
        by_replica.setdefault(worker.origin.replica, []).append(worker)
    found = []
    for replica, of in by_replica.items():
        last = max(worker.last_seen_unix_nano for worker in of) / 1e9
        found.append(
            {
                "replica": replica,
                "last_seen": last,
                "is_silent": now - last > _SILENT_SECONDS,
                "disabled": _disabled(of),
                "engine": f"{of[0].origin.engine} {of[0].origin.engine_version}",
            }
        )
    return sorted(found, key=lambda one: (one["last_seen"], one["replica"]))


def _disabled(workers: list[Worker]) -> int:
    """What is switched off at each replica; workers that share a model may all say the same."""
    said = [(worker.origin.replica, worker.status) for worker in workers if worker.status is not None]
    return len({(replica, one.signal, one.reason) for replica, status in said for one in status.disabled})


# Any: JSON.
def _rank(row: dict[str, Any]) -> int:
    known = (*_SEVERITIES, "")
    return 2 * known.index(row["severity"]) - int(row["is_silent"])
