"""A request as it arrived in, its answer once it is in the log out."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from introspan_collector.accept.decode import Decoded, decode
from introspan_collector.accept.limits import ProducerLimits
from introspan_collector.accept.pressure import Pressure
from introspan_collector.accept.refusal import malformed, overloaded
from introspan_wire.codec import FrameError
from introspan_wire.v1 import observation_service_pb2 as pb

_PRESSURE_RETRY_SECONDS = 1.0
_NAMED = 8


class Journal(Protocol):
    """Where accepted requests go."""

    def seen(self, producer: bytes, sequence: int) -> bool:
        """True if the batch is durable already."""
        ...

    def append(
        self,
        received_unix_nano: int,
        producer: bytes,
        sequence: int,
        payload: bytes,
        done: Callable[[Exception | None], None],
        decoded: Decoded,
    ) -> None:
        """Makes a batch durable, then calls done, from any thread, with None or with what prevented it.

        decoded: the same batch, for whoever reads it in this process.
        """
        ...


class Intake:
    """Decides on one request after another. Belongs to one event loop; any thread may read its counts."""

    def __init__(
        self,
        journal: Journal,
        pressure: Pressure,
        limits: ProducerLimits,
        *,
        directives: pb.Directives | None = None,
        max_request_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._pressure = pressure
        self._limits = limits
        self._answer_without_remark = pb.ExportObservationsResponse(directives=directives).SerializeToString()
        self._directives = directives
        self._max_request_bytes = max_request_bytes
        self._clock = clock
        self._in_flight: dict[tuple[bytes, int], asyncio.Future[None]] = {}
        self._durable: deque[Callable[[], None]] = deque()
        self._waking = False
        self.accepted_batches = 0
        self.accepted_segments = 0
        self.accepted_bytes = 0
        self.duplicate_batches = 0
        self.skewed_segments = 0
        self.unknown_columns = 0
        self.rejected_segments = 0
        self.refused_batches: Counter[str] = Counter()

    async def accept(self, raw: bytes) -> bytes:
        """The answer to a request, serialized, once the request is durable. Raises RefusalError."""
        if reason := self._pressure.must_refuse():
            raise overloaded(reason, f"the collector is under pressure: {reason}", _PRESSURE_RETRY_SECONDS)
        if len(raw) > self._max_request_bytes:
            limit = self._max_request_bytes
            raise malformed(f"request must be at most {limit} bytes, got {len(raw)}; split the batch")
        received_unix_nano = int(self._clock() * 1e9)
        try:
            decoded = decode(raw, received_unix_nano)
        except FrameError as error:
            raise malformed(str(error)) from error
        batch = (decoded.producer, decoded.sequence)
        if self._journal.seen(*batch):
            self.duplicate_batches += 1
        elif batch in self._in_flight:
            self.duplicate_batches += 1
            await asyncio.shield(self._in_flight[batch])
        else:
            self._check_limits(decoded, len(raw))
            await self._log(raw, decoded, received_unix_nano)
        return self._answer(decoded)

    def _check_limits(self, decoded: Decoded, size_bytes: int) -> None:
        if not self._limits.has_room(decoded.producer):
            raise overloaded(
                "too_many_producers",
                f"accept.max_producers = {len(self._limits)} is reached; raise it or add a collector",
                _PRESSURE_RETRY_SECONDS,
            )
        wait_seconds = self._limits.wait_seconds(decoded.producer, size_bytes)
        if wait_seconds > 0:
            raise overloaded(
                "producer_rate", "the producer sends more than accept.producer_bytes_per_second", wait_seconds
            )

    async def _log(self, raw: bytes, decoded: Decoded, received_unix_nano: int) -> None:
        loop = asyncio.get_running_loop()
        batch = (decoded.producer, decoded.sequence)
        future = self._in_flight[batch] = loop.create_future()
        self._pressure.pending_bytes += len(raw)
        settle = partial(self._settle, future, decoded, len(raw))

        def done(error: Exception | None) -> None:
            # A group of batches becomes durable at once: the event loop is woken once for all of them.
            self._durable.append(partial(settle, error))
            if not self._waking:
                self._waking = True
                loop.call_soon_threadsafe(self._settle_durable)

        self._journal.append(received_unix_nano, *batch, raw, done, decoded)
        # Shielded: a caller who hangs up must not unsettle the one who sends the same batch again.
        await asyncio.shield(future)

    def _settle_durable(self) -> None:
        self._waking = False  # before the look into the queue: what comes after it wakes the loop again
        while self._durable:
            self._durable.popleft()()

    def _settle(
        self, future: asyncio.Future[None], decoded: Decoded, size_bytes: int, error: Exception | None
    ) -> None:
        self._pressure.pending_bytes -= size_bytes
        del self._in_flight[decoded.producer, decoded.sequence]
        if error is not None:
            refusal = overloaded("log_error", f"the log cannot be written: {error}", _PRESSURE_RETRY_SECONDS)
            future.set_exception(refusal)
            future.exception()  # nobody may be waiting any more, which is no error of ours
            return
        self.accepted_batches += 1
        self.accepted_segments += decoded.segments
        self.accepted_bytes += size_bytes
        self.skewed_segments += decoded.skewed_segments
        self.unknown_columns += decoded.unknown_columns
        self.rejected_segments += decoded.rejected_segments
        future.set_result(None)

    def _answer(self, decoded: Decoded) -> bytes:
        remarks = _remarks(decoded)
        if not remarks:
            return self._answer_without_remark
        answer = pb.ExportObservationsResponse(directives=self._directives)
        answer.partial_success.rejected_segments = decoded.rejected_segments
        answer.partial_success.error_message = "; ".join(remarks)
        return answer.SerializeToString()


def _remarks(decoded: Decoded) -> list[str]:
    """What of a batch that was accepted was not taken as it came: sentences that name field, value and remedy."""
    remarks = []
    if decoded.rejected_segments:
        numbers = ", ".join(map(str, decoded.unknown_kinds[:_NAMED]))
        remarks.append(
            f"tables.kind: {decoded.rejected_segments} segments of kinds this collector does not know ({numbers}) "
            "were rejected; upgrade the collector"
        )
    if decoded.unknown_signals:
        names = ", ".join(decoded.unknown_signals[:_NAMED])
        remarks.append(
            f"tables.columns.signals: {len(decoded.unknown_signals)} not in this collector's catalogue "
            f"were ignored ({names}); upgrade the collector"
        )
    if decoded.skewed_segments:
        remarks.append(
            f"tables.time_unix_nano: {decoded.skewed_segments} segments are more than a day off the "
            "collector's clock, the time of receipt was used; set the producer's clock"
        )
    return remarks
