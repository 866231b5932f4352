"""Serialized requests in, replies or failures out, over gRPC. Only the exporter's thread imports this."""

from collections.abc import Iterable

import grpc

from introspan.config import Settings
from introspan.export.reply import DETAILS_KEY, Failure, Reply, parse_reply, parse_retry_seconds

METHOD = "/introspan_wire.v1.ObservationService/ExportObservations"

_RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}

_OPTIONS = (
    ("grpc.enable_retries", 0),  # ours are the only retries, so one deadline bounds them
    ("grpc.use_local_subchannel_pool", 1),  # share no connection with the host's own gRPC users
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),  # gRPC's own 120 s would outlast a collector's restart
    ("grpc.keepalive_time_ms", 20_000),  # above the heartbeat, so it fires only when nothing comes back
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 64 * 1024),  # a reply is small; a stranger's may not be
)


class Channel:
    """A connection to one collector, opened by the first send."""

    def __init__(self, settings: Settings, sdk_version: str) -> None:
        """Raises OSError if a TLS file cannot be read."""
        assert settings.endpoint is not None, "an exporter needs an endpoint"
        options = [*_OPTIONS, ("grpc.primary_user_agent", f"introspan/{sdk_version}")]
        compression = grpc.Compression.Gzip if settings.compression == "gzip" else None
        if settings.tls:
            self._channel = grpc.secure_channel(
                settings.endpoint, _credentials(settings), options=options, compression=compression
            )
        else:
            self._channel = grpc.insecure_channel(settings.endpoint, options=options, compression=compression)
        # No serializers: the frame is bytes already, and an undecodable reply is for us to judge.
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(METHOD)
        self._metadata = settings.headers

    def send(self, frame: bytes, timeout_seconds: float) -> Reply | Failure:
        """Sends one request and waits for the answer; raises nothing that a peer can cause."""
        try:
            return parse_reply(self._call(frame, timeout=timeout_seconds, metadata=self._metadata))
        except grpc.RpcError as error:
            return _failure(error)
        except ValueError as error:  # gRPC's way to say that close() was called meanwhile
            return Failure("cancelled", str(error), retryable=True)

    def close(self) -> None:
        """Closes the connection and cancels the request in flight, from any thread."""
        self._channel.close()


def _credentials(settings: Settings) -> grpc.ChannelCredentials:
    authorities, chain, key = (
        path.read_bytes() if path else None
        for path in (settings.certificate, settings.client_certificate, settings.client_key)
    )
    return grpc.ssl_channel_credentials(
        root_certificates=authorities, private_key=key, certificate_chain=chain
    )


def _failure(error: grpc.RpcError) -> Failure:
    assert isinstance(error, grpc.Call), "a blocking call raises an error that is the call as well"
    code = error.code()
    wish = _retry_seconds(error.trailing_metadata() or ())
    retryable = code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and wish is not None)
    return Failure(code.name.lower(), error.details() or "", retryable, wish)


def _retry_seconds(metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            return parse_retry_seconds(value)
    return None
