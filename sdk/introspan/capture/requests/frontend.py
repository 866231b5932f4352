"""HTTP requests of vLLM's API server in; a passport on each engine request out.

Three methods of the server are wrapped: the two that every endpoint calls with the request and its headers, and the
one that takes a request to the engine. What the first two learn travels with the trace headers, which vLLM hands
from one to the other: an answer that is streamed is generated in another task than the one that read the headers,
so no variable of the task would reach it. Read off vLLM 0.32.0.
"""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from introspan.capture.requests.endpoints import having
from introspan.capture.requests.identity import LONGEST_ID
from introspan.capture.requests.passport import Passport, stamp
from introspan.capture.requests.reprefill_mark import shared_key
from introspan.capture.requests.reprefill_sender import Followed, Sender, one_greedy_token, refusal
from introspan.context import cluster_key, parse_traceparent
from introspan.patches import Patches

_log = logging.getLogger("introspan")


class TraceHeaders(dict[str, str]):
    """vLLM's trace headers, and the key of their sender; empty, hence false like None, where there are none."""

    __slots__ = ("cluster_key",)

    def __init__(self, headers: Mapping[str, str] | None, cluster_key: int | None) -> None:
        super().__init__(headers or {})
        self.cluster_key = cluster_key


class Frontend:
    """Carries trace context and cluster key of the API process's requests into the engine.

    sender: sends some of the requests again, None where none are.
    """

    def __init__(self, salt: bytes, sender: Sender | None = None) -> None:
        self._salt = salt
        self._sender = sender
        self._patches = Patches()
        # Set and read by the endpoint, in one task.
        self._user: ContextVar[str | None] = ContextVar("introspan_user", default=None)
        self._errors = 0
        self._follows_endpoints = False

    # Any throughout: classes, parameters and requests of vLLM.
    def follow_engine(self, engine: Any) -> None:
        """Wraps `AsyncLLM.generate` of one engine client class."""

        def around(original: Any) -> Any:
            # Not a generator itself: it runs when it is called, before anything is asked of what it returns.
            def generate(
                client: Any, prompt: Any, sampling_params: Any, request_id: str, *args: Any, **kwargs: Any
            ) -> Any:
                headers = kwargs.get("trace_headers")
                followed = self._followed(client, original, prompt, sampling_params, request_id, kwargs)
                stamped = self._stamped(sampling_params, request_id, headers, followed)
                if isinstance(headers, TraceHeaders):
                    kwargs["trace_headers"] = dict(headers) or None
                answer = original(client, prompt, stamped, request_id, *args, **kwargs)
                if self._sender is None or followed is None:
                    return answer
                return self._sender.passed_on(answer, followed)

            return generate

        self._patches.replace(engine, "generate", around)

    def follow_server(self, serving: Any, checking: Any = None) -> None:
        """Wraps the class of the server's endpoints that reads headers, and the one that looks at requests.

        checking: the second; None where it is the same.
        """

        def around_headers(original: Any) -> Any:
            async def get_trace_headers(
                endpoint: Any, headers: Mapping[str, str], *args: Any, **kwargs: Any
            ) -> Any:
                return self._with_caller(headers, await original(endpoint, headers, *args, **kwargs))

            return get_trace_headers

        def around_check(original: Any) -> Any:
            async def check(endpoint: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
                self._user.set(getattr(request, "user", None))
                return await original(endpoint, request, *args, **kwargs)

            return check

        # vLLM has no public seam here.
        self._patches.replace(serving, "_get_trace_headers", around_headers)
        self._patches.replace(checking or serving, "_check_model", around_check)

    def follow_starts(self, engine: Any) -> None:
        """Follows the endpoints as soon as the process has an engine client of this class."""

        def around(original: Any) -> Any:
            def init(client: Any, *args: Any, **kwargs: Any) -> None:
                original(client, *args, **kwargs)
                self.follow_endpoints()
                self._ask_whether_to_send(client)

            return init

        self._patches.replace(engine, "__init__", around)

    def leave(self) -> None:
        """Gives the classes back as they were."""
        self._patches.undo()

    def follow_endpoints(self) -> None:
        """Follows the server's endpoints, once; they are imported only by a process that has an engine client."""
        if self._follows_endpoints:
            return
        self._follows_endpoints = True
        try:
            self.follow_server(having("_get_trace_headers"), having("_check_model"))
        except Exception:  # noqa: BLE001 - the edge of the host
            _log.warning("introspan: callers of HTTP requests are not told apart", exc_info=True)

    def _with_caller(self, headers: Mapping[str, str], traced: Mapping[str, str] | None) -> Any:
        """The trace headers that vLLM found, and who sent them, if that can be told."""
        try:
            authorization, user = headers.get("authorization"), self._user.get()
            if not authorization and not user:
                return traced
            return TraceHeaders(traced, cluster_key(self._salt, api_key=authorization, user=user))
        except Exception:  # noqa: BLE001 - the edge of the host
            self._failed()
            return traced

    def _ask_whether_to_send(self, client: Any) -> None:
        """Sends nothing again to an engine whose answers could not be compared, and says why."""
        if self._sender is None:
            return
        try:
            why = refusal(client.vllm_config)
        except Exception as error:  # noqa: BLE001 - the edge of the host
            why = f"{type(error).__name__}: {error}"
        if why is not None:
            self._sender = None
            _log.warning("introspan: requests are not sent again: %s", why)

    # Any: the method's keyword arguments.
    def _followed(
        self, client: Any, original: Any, prompt: Any, params: Any, request_id: str, kwargs: dict[str, Any]
    ) -> Followed | None:
        """The request, if it is one that is sent again."""
        if self._sender is None:
            return None
        try:
            adapter = kwargs.get("lora_request")
            return self._sender.choose(client, original, prompt, params, request_id[:LONGEST_ID], adapter)
        except Exception:  # noqa: BLE001 - the edge of the host
            self._failed()
            return None

    def _stamped(
        self, params: Any, request_id: str, headers: Mapping[str, str] | None, followed: Followed | None
    ) -> Any:
        """The parameters with a passport, or as they are where that fails: the request is served either way."""
        try:
            trace_id, span_id = parse_traceparent((headers or {}).get("traceparent", "")) or (
                bytes(16),
                bytes(8),
            )
            caller = getattr(headers, "cluster_key", None)
            number = followed.number if followed is not None else ""
            return stamp(params, Passport(request_id, trace_id, span_id, caller, number))
        except Exception:  # noqa: BLE001 - the edge of the host
            self._failed()
            return params

    def _failed(self) -> None:
        self._errors += 1
        if self._errors == 1:
            _log.warning("introspan: a request goes without trace context or caller", exc_info=True)


def install(salt: bytes, reprefill_rate: float = 0.0, token_stride: int = 1) -> Frontend:
    """Follows the API server's classes in this process. Raises ImportError or AttributeError where they differ."""
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415 - only in a process that serves

    sender = Sender(reprefill_rate, token_stride, shared_key(), one_greedy_token) if reprefill_rate else None
    frontend = Frontend(salt, sender)
    frontend.follow_engine(AsyncLLM)
    frontend.follow_starts(AsyncLLM)
    return frontend
