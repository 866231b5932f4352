"""The one table of settings: what each is called, how its text is read, what documentation says of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from introspan import values
from introspan.layers import LayerSpec


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its variable, how its text is read, and what documentation says of it.

    fallbacks are OpenTelemetry's variables, read in order where the variable itself is unset or empty.
    """

    name: str
    parse: Callable[[str], object]
    default: str
    meaning: str
    fallbacks: tuple[str, ...] = ()
    secret: bool = False


def _layers(name: str) -> Callable[[str], LayerSpec]:
    return partial(LayerSpec.parse, name)


OTLP = "OTEL_EXPORTER_OTLP_"

KEYS: tuple[Key, ...] = (
    Key(
        "INTROSPAN_ENDPOINT",
        values.endpoint,
        "",
        "Address of the collector: host:port, http://host:port or https://host:port. Unset: capture is off.",
        (f"{OTLP}ENDPOINT",),
    ),
    Key("INTROSPAN_ENABLED", values.switch, "on", "Switches capture off as a whole."),
    Key("INTROSPAN_REQUEST_RATE", values.real(0, 1), "1.0", "Share of requests that are measured, 0 to 1."),
    Key(
        "INTROSPAN_TOKEN_STRIDE",
        values.whole(1),
        "24",
        "Of so many decoded tokens a burst of three is measured; 1: all are.",
    ),
    Key(
        "INTROSPAN_SINGLE_TOKENS",
        values.switch,
        "off",
        "Whether each measured token is sent by itself rather than in stretches of 64 and more, to look at requests "
        "token by token. Many times the observations, so fewer requests fit the row budget; and another reference.",
    ),
    Key(
        "INTROSPAN_LAYERS",
        _layers("INTROSPAN_LAYERS"),
        "8",
        "Layers whose residual stream is measured: a number (spaced evenly, first and last included), all, "
        "or a list such as 0,5,10 (one layer alone: `5,`).",
    ),
    Key(
        "INTROSPAN_ATTENTION_LAYERS",
        _layers("INTROSPAN_ATTENTION_LAYERS"),
        "4",
        "Layers whose attention is measured, in the same forms.",
    ),
    Key(
        "INTROSPAN_ATTENTION_BYTES",
        values.size,
        "64MiB",
        "Keys read from the KV cache at once at most; rows beyond it are not measured, and counted. "
        "On a GPU 16 times as many.",
    ),
    Key(
        "INTROSPAN_ROW_BUDGET",
        values.whole(1),
        "50",
        "Observations a second and worker at most; beyond it fewer requests are measured. 50 ≈ 100 kB/s.",
    ),
    Key(
        "INTROSPAN_PROJECTIONS",
        values.switch,
        "on",
        "Whether 32 numbers that locate the residual stream are sent.",
    ),
    Key(
        "INTROSPAN_REPREFILL_RATE",
        values.real(0, 1),
        "0",
        "Share of requests, 0 to 1, that the server sends itself again once they are answered, to compare states that "
        "were decoded with the same ones prefilled. Each costs the engine a prompt; clients see nothing of it.",
    ),
    Key(
        "INTROSPAN_HEADERS",
        values.headers,
        "",
        "gRPC metadata for the collector, key=value separated by commas, percent-encoded.",
        (f"{OTLP}HEADERS",),
        secret=True,
    ),
    Key(
        "INTROSPAN_CERTIFICATE",
        values.file,
        "",
        "PEM file of the authorities that may sign the collector's certificate; the system's where unset.",
        (f"{OTLP}CERTIFICATE",),
    ),
    Key(
        "INTROSPAN_CLIENT_CERTIFICATE",
        values.file,
        "",
        "PEM file of the certificate chain shown to the collector.",
        (f"{OTLP}CLIENT_CERTIFICATE",),
    ),
    Key(
        "INTROSPAN_CLIENT_KEY",
        values.file,
        "",
        "PEM file of that certificate's private key.",
        (f"{OTLP}CLIENT_KEY",),
    ),
    Key(
        "INTROSPAN_INSECURE",
        values.switch,
        "on",
        "Whether an address without scheme is spoken to in the clear; off where a certificate is set.",
        (f"{OTLP}INSECURE",),
    ),
    Key(
        "INTROSPAN_TIMEOUT",
        values.real(0.1, 3600),
        "10",
        "Seconds (as in OpenTelemetry for Python) for one batch, retries included; then it is dropped.",
        (f"{OTLP}TIMEOUT",),
    ),
    Key("INTROSPAN_COMPRESSION", values.compression, "none", "none or gzip.", (f"{OTLP}COMPRESSION",)),
    Key(
        "INTROSPAN_SERVICE_NAME",
        str,
        "vllm",
        "Logical service; service.name of OTEL_RESOURCE_ATTRIBUTES where unset.",
        ("OTEL_SERVICE_NAME",),
    ),
    Key(
        "INTROSPAN_REPLICA",
        str,
        "",
        "Name of this replica; where unset, service.instance.id of OTEL_RESOURCE_ATTRIBUTES, else the host.",
    ),
    Key(
        "INTROSPAN_RESOURCE_ATTRIBUTES",
        values.pairs,
        "",
        "Further attributes of this producer, key=value separated by commas, percent-encoded; at most 64 are sent.",
        ("OTEL_RESOURCE_ATTRIBUTES",),
    ),
    Key(
        "INTROSPAN_QUEUE_BYTES",
        values.size,
        "16MiB",
        "Memory for observations that wait to be sent; beyond it the oldest are dropped and counted.",
    ),
    Key(
        "INTROSPAN_CANARY_KEY",
        values.salt,
        "",
        "Secret of ≥ 16 characters shared with whoever asks canaries: requests signed with it are measured at every "
        "layer and kept apart from traffic. Unset: there are none.",
        secret=True,
    ),
    Key(
        "INTROSPAN_SALT",
        values.salt,
        "",
        "Secret of ≥ 16 characters under which callers are hashed. Give all replicas the same to recognise a "
        "caller on each; unset: drawn at random by each API server process when it starts, and by each worker for "
        "callers that are told apart by the beginning of their prompt alone.",
        secret=True,
    ),
)
"""Every setting, in the order of the documentation."""
