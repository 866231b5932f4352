"""HTTP requests of vLLM's API server in; a passport on each engine request out.

Two methods of the server are wrapped: the one that every endpoint calls with the request's headers, and the one
that hands a request to the engine. Read off vLLM 0.32.0.
"""

import functools
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from introspan.capture.passport import Passport, stamp
from introspan.context import cluster_key, parse_traceparent

_log = logging.getLogger("introspan")


class Frontend:
    """Carries trace context and cluster key of the API process's requests into the engine."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        # Set by the endpoint and read by the engine client in the same task, or a task made from it.
        self._headers: ContextVar[Mapping[str, str] | None] = ContextVar("introspan_headers", default=None)
        self._user: ContextVar[str | None] = ContextVar("introspan_user", default=None)
        self._errors = 0
        self._follows_endpoints = False

    # Any: classes of vLLM.
    def follow_engine(self, engine: Any) -> None:
        """Wraps `AsyncLLM.add_request` of one engine client class."""
        original = engine.add_request

        @functools.wraps(original)
        async def add_request(
            client: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any
        ) -> Any:
            return await original(
                client, request_id, prompt, self._stamped(request_id, params), *args, **kwargs
            )

        engine.add_request = add_request

    def follow_server(self, serving: Any) -> None:
        """Wraps the base class of the server's endpoints."""
        headers_of, check_model = serving._get_trace_headers, serving._check_model  # noqa: SLF001 - vLLM has no public seam here

        @functools.wraps(headers_of)
        async def get_trace_headers(endpoint: Any, headers: Mapping[str, str]) -> Any:
            self._headers.set(headers)
            return await headers_of(endpoint, headers)

        @functools.wraps(check_model)
        async def check(endpoint: Any, request: Any) -> Any:
            self._user.set(getattr(request, "user", None))
            return await check_model(endpoint, request)

        serving._get_trace_headers = get_trace_headers  # noqa: SLF001
        serving._check_model = check  # noqa: SLF001

    def follow_endpoints(self) -> None:
        """Follows the server's endpoints, once; they are imported only by a process that has an engine client."""
        if self._follows_endpoints:
            return
        self._follows_endpoints = True
        try:
            from vllm.entrypoints.serve.engine.serving import BaseServing  # noqa: PLC0415

            self.follow_server(BaseServing)
        except Exception:  # noqa: BLE001 - the edge of the host
            _log.warning("introspan: trace context of HTTP requests is not carried", exc_info=True)

    def _stamped(self, request_id: str, params: Any) -> Any:
        """The parameters with a passport, or as they are where that fails: the request is served either way."""
        try:
            if not hasattr(params, "extra_args"):
                return params
            return stamp(params, self._passport(request_id))
        except Exception:  # noqa: BLE001 - the edge of the host
            self._errors += 1
            if self._errors == 1:
                _log.warning("introspan: a request goes without trace context", exc_info=True)
            return params

    def _passport(self, request_id: str) -> Passport:
        headers = self._headers.get() or {}
        trace = parse_traceparent(headers.get("traceparent", ""))
        trace_id, span_id = trace if trace is not None else (bytes(16), bytes(8))
        authorization, user = headers.get("authorization"), self._user.get()
        caller = None
        if authorization or user:
            caller = cluster_key(self._salt, api_key=authorization, user=user, prompt_token_ids=())
        return Passport(request_id, trace_id, span_id, caller)


def install(salt: bytes) -> None:
    """Follows the API server's classes in this process. Raises ImportError or AttributeError where they differ."""
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415 - only in a process that serves

    frontend = Frontend(salt)
    frontend.follow_engine(AsyncLLM)
    original = AsyncLLM.__init__

    @functools.wraps(original)
    def init(client: Any, *args: Any, **kwargs: Any) -> None:
        original(client, *args, **kwargs)
        frontend.follow_endpoints()

    AsyncLLM.__init__ = init
