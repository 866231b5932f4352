"""Environment variables and vLLM's additional_config in, one validated Settings out."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from introspan import values
from introspan.keys import KEYS, OTLP, Key
from introspan.layers import LayerSpec, SettingsError

__all__ = ["KEYS", "Key", "LayerSpec", "Settings", "SettingsError", "load"]

PREFIX = "INTROSPAN_"
COLLECTOR_PREFIX = "INTROSPAN_COLLECTOR_"
"""Variables with this prefix belong to the collector; one environment may hold both programs' settings."""

# Kubernetes adds such variables to every pod of a namespace, for each Service in it: one of a Service named
# introspan-x looks like a setting of ours, and is none.
_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)

_MIB = 2**20
_LAYERS = LayerSpec("INTROSPAN_LAYERS", 8)
_ATTENTION_LAYERS = LayerSpec("INTROSPAN_ATTENTION_LAYERS", 4)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the SDK was told to do. Fields are named after `KEYS`, without prefix, in lower case."""

    endpoint: str | None = None
    tls: bool = False
    enabled: bool = True
    request_rate: float = 1.0
    token_stride: int = 24
    single_tokens: bool = False
    layers: LayerSpec = _LAYERS
    attention_layers: LayerSpec = _ATTENTION_LAYERS
    attention_bytes: int = 64 * _MIB
    row_budget: int = 50
    projections: bool = True
    reprefill_rate: float = 0.0
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    timeout_seconds: float = 10.0
    compression: str = "none"
    service_name: str = "vllm"
    replica: str = ""
    resource_attributes: tuple[tuple[str, str], ...] = ()
    queue_bytes: int = 16 * _MIB
    canary_key: bytes = field(default=b"", repr=False)
    salt: bytes = field(default=b"", repr=False)

    @property
    def off_because(self) -> str | None:
        """One sentence on why nothing is captured, or None where something is."""
        if not self.enabled:
            return "capture is off: INTROSPAN_ENABLED or an OTEL_* switch says so"
        if self.endpoint is None:
            return "capture is off: set INTROSPAN_ENDPOINT=host:4317 to switch it on"
        if self.request_rate == 0:
            return "capture is off: INTROSPAN_REQUEST_RATE is 0"
        return None


def load(environ: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings in force: additional_config["introspan"] over INTROSPAN_* over OTEL_* over the default.

    overrides has keys without prefix, in lower case. An empty value counts as unset. Raises SettingsError.
    """
    given = {_override(name): values.text_of(value) for name, value in (overrides or {}).items()}
    ours = [n for n in environ if n.startswith(PREFIX) and not n.startswith(COLLECTOR_PREFIX)]
    _refuse_unknown((n for n in ours if not _SERVICE_LINK.fullmatch(n)), [key.name for key in KEYS])
    _refuse_unknown(given, [_override(_short(key)) for key in KEYS])
    found: dict[str, object] = {}
    for key in KEYS:
        where, text = _lookup(key, environ, given)
        if text:
            found[_short(key)] = _parse(key, where, text)
    found.setdefault("enabled", not _switched_off_by_otel(environ))
    return _settings(found)


def _short(key: Key) -> str:
    return key.name.removeprefix(PREFIX).lower()


def _override(name: str) -> str:
    """An override's key as the operator wrote it."""
    return f'additional_config["introspan"]["{name}"]'


def _refuse_unknown(names: Iterable[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise SettingsError(f"{name} is not a setting; did you mean {nearest}?")


def _lookup(key: Key, environ: Mapping[str, str], given: Mapping[str, str]) -> tuple[str, str]:
    """Where a setting's text was found, and the text; empty where it is unset."""
    override = _override(_short(key))
    if text := given.get(override, "").strip():
        return override, text
    for name in (key.name, *key.fallbacks):
        # An OTLP address that speaks HTTP is of no use to a gRPC client.
        if name == f"{OTLP}ENDPOINT" and environ.get(f"{OTLP}PROTOCOL", "grpc") != "grpc":
            continue
        if text := environ.get(name, "").strip():
            return name, text
    return key.name, ""


def _parse(key: Key, where: str, text: str) -> object:
    try:
        return key.parse(text)
    except ValueError as error:
        got = "a secret value" if key.secret else repr(values.without_userinfo(text))
        raise SettingsError(f"{where} {error}, got {got}") from error


def _switched_off_by_otel(environ: Mapping[str, str]) -> bool:
    disabled = environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    named = {name.strip() for name in disabled} & {"introspan", "*"}
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or bool(named)


# Any: each value was read by its own parser of KEYS, and Settings declares the types.
def _settings(found: dict[str, Any]) -> Settings:
    """Settings from the values that were given, with what depends on two of them."""
    if ("client_certificate" in found) != ("client_key" in found):
        raise SettingsError(
            "INTROSPAN_CLIENT_CERTIFICATE and INTROSPAN_CLIENT_KEY must be set together, got one of them"
        )
    if found.get("reprefill_rate") and not found.get("projections", True):
        raise SettingsError(
            "INTROSPAN_REPREFILL_RATE must be 0 where INTROSPAN_PROJECTIONS is off, since projections are what is "
            f"compared, got {found['reprefill_rate']}"
        )
    insecure = found.pop("insecure", "certificate" not in found and "client_certificate" not in found)
    if address := found.pop("endpoint", None):
        found["endpoint"] = address.target
        found["tls"] = not insecure if address.tls is None else address.tls
    if "timeout" in found:
        found["timeout_seconds"] = found.pop("timeout")
    attributes = dict(found.get("resource_attributes", ()))
    for field_name, attribute in (("service_name", "service.name"), ("replica", "service.instance.id")):
        if value := attributes.pop(attribute, ""):
            found.setdefault(field_name, value)
    found["resource_attributes"] = tuple(attributes.items())
    return Settings(**found)
