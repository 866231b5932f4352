"""Names in, values that operators give the chart out."""

from typing import Any

# Any: YAML.
VALUE_SETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything on": {
        "image": {"repository": "registry.example.com/introspan-collector", "digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": [{"name": "pull"}],
        "config": {
            "accept": {"max_pending_bytes": 33554432},
            "log": {"commit": "interval", "max_age_seconds": 3600},
            "detect": {"page_days": 60, "ticket_days": 2},
            "notify": {
                "alertmanagers": ["https://alertmanager-0:9093", "https://alertmanager-1:9093"],
                "alertmanager_headers": {"x-scope-orgid": "models"},
                "webhooks": ["https://hooks.example.com/introspan"],
            },
            "canary": {"endpoints": ["http://vllm:8000"], "interval_seconds": 30},
        },
        "secrets": {
            name: {"name": f"introspan-{name.lower()}", "key": "value"}
            for name in (
                "apiToken",
                "producerToken",
                "canaryKey",
                "canaryApiKey",
                "alertmanagerToken",
                "alertmanagerCa",
                "webhookToken",
                "webhookSecret",
                "webhookCa",
            )
        },
        "tls": {"secretName": "introspan-tls", "clientCertificates": True},
        "persistence": {"storageClass": "fast", "whenDeleted": "Delete"},
        "cpuLimit": "2",
        "podDisruptionBudget": {"enabled": True},
        "service": {"annotations": {"example.com/team": "ml"}},
        "serviceAccount": {"annotations": {"example.com/role": "none"}},
        "networkPolicy": {
            "producers": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "vllm"}}}],
            "readers": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
            ],
            "egress": [{"to": [{"namespaceSelector": {}}]}],
        },
        "monitoring": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": True},
        },
        "runbookUrl": "https://runbooks.example.com/introspan.md",
        "grafanaUrl": "https://grafana.example.com",
        "podAnnotations": {"example.com/a": "b"},
        "podLabels": {"example.com/c": "d"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    },
    "small": {
        "memoryMiB": 512,
        "persistence": {"sizeGiB": 2},
        "config": {
            "log": {"max_bytes": 268435456},
            "archive": {"max_bytes": 1073741824, "rollup_max_bytes": 134217728},
        },
    },
    "nothing extra": {
        "serviceAccount": {"create": False},
        "networkPolicy": {"enabled": False},
        "config": {"detect": {"enabled": False}},
    },
}
