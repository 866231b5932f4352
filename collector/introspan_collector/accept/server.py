"""gRPC calls in, the intake's answers out: addresses, TLS, tokens, health."""

import hmac
from collections.abc import AsyncIterator, Mapping

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from introspan_collector.accept.credentials import Tls
from introspan_collector.accept.intake import Intake
from introspan_collector.accept.refusal import RefusalError

_log = structlog.get_logger(__name__)

SERVICE = "introspan_wire.v1.ObservationService"

_UNFORESEEN = "internal_error"

_UNREAD = "unread"

# Room above the intake's own limit: what is too large is told so by name, up to here. gRPC itself refuses what is
# larger still by its length, before it takes any memory, with a status of its own.
_RECEIVE_FACTOR = 4


class AcceptServer:
    """Serves ObservationService and grpc.health.v1 on one address. Belongs to one event loop."""

    def __init__(
        self,
        intake: Intake,
        address: str,
        *,
        max_request_bytes: int,
        tls: Tls | None = None,
        bearer_token: str | None = None,
    ) -> None:
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", max_request_bytes * _RECEIVE_FACTOR),
                ("grpc.so_reuseport", 0),  # a second collector on the same port is a mistake, not a share
            )
        )
        self._health = health.aio.HealthServicer()
        # The handler of a stream is called before the message has come: so it sees that one never does.
        export: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(
            _Export(intake, bearer_token).__call__
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"ExportObservations": export}),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = self._bind(address, tls)
        # gRPC takes a port modulo 65,536.
        wanted = int(address.rpartition(":")[2])
        if wanted not in (0, self.port):
            raise RuntimeError(f"{wanted} is no port")

    def _bind(self, address: str, tls: Tls | None) -> int:
        if tls is None:
            return self._server.add_insecure_port(address)
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)],
            root_certificates=tls.client_ca,
            require_client_auth=tls.client_ca is not None,
        )
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        """Begins to answer; the health service says SERVING."""
        await self._server.start()
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_seconds: float) -> None:
        """Says NOT_SERVING, takes no new calls and gives those under way so long to be answered."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)


class _Export:
    """Hands the request over as it arrived: the log stores those bytes, so nothing may re-serialize them."""

    def __init__(self, intake: Intake, bearer_token: str | None) -> None:
        self._intake = intake
        self._authorization = None if bearer_token is None else f"Bearer {bearer_token}".encode()

    async def __call__(
        self, _requests: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> bytes:
        try:
            if self._authorization is not None:
                self._authenticate(self._authorization, dict(context.invocation_metadata() or ()))
            return await self._intake.accept(await self._read(context))
        except RefusalError as refusal:
            found = refusal
        except Exception as error:  # noqa: BLE001 the edge of the server: gRPC would answer, and count nothing
            found = self._unforeseen(error)
        self._intake.refused_batches[found.reason] += 1
        return await context.abort(found.code, found.message, found.metadata())

    async def _read(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        # EOF is an object of grpc's own, which its types do not tell of.
        raw: object = await context.read()
        if not isinstance(raw, bytes):
            raise RefusalError(
                grpc.StatusCode.INVALID_ARGUMENT, _UNREAD, "the call ended without a request; send one"
            )
        return raw

    def _unforeseen(self, error: Exception) -> RefusalError:
        if not self._intake.refused_batches[_UNFORESEEN]:
            _log.error("a batch could not be taken", exc_info=error)
        return RefusalError(
            grpc.StatusCode.INTERNAL, _UNFORESEEN, f"the collector failed with {type(error).__name__}"
        )

    def _authenticate(self, expected: bytes, metadata: Mapping[str, str | bytes]) -> None:
        given = metadata.get("authorization", "")
        if not hmac.compare_digest(given.encode() if isinstance(given, str) else given, expected):
            raise RefusalError(
                grpc.StatusCode.UNAUTHENTICATED,
                "unauthenticated",
                "authorization must be 'Bearer <token>' with the token of accept.bearer_token_file",
            )
