"""Claims on how trace and caller of an HTTP request come to the engine, against small likenesses of vLLM's classes."""

import asyncio
from types import SimpleNamespace

import pytest

from introspan.capture.requests.frontend import Frontend
from introspan.capture.requests.passport import read
from introspan.context import cluster_key

SALT = b"0123456789abcdef"


def traceparent(i):
    return f"00-{i + 1:032x}-{i + 1:016x}-01"


class Parameters:
    def __init__(self):
        self.extra_args = None


def classes():
    """New classes for each test, since following changes them. Method for method as in vLLM 0.32.0."""

    class Engine:
        """As AsyncLLM: what is generated begins at the first look at it."""

        def __init__(self):
            self.got = {}

        async def generate(self, prompt, sampling_params, request_id, *, trace_headers=None, priority=0):
            await asyncio.sleep(0)
            self.got[request_id] = SimpleNamespace(
                prompt=prompt, params=sampling_params, trace_headers=trace_headers, priority=priority
            )
            yield f"{prompt}!"

    class Serving:
        """As BaseServing and an endpoint on it."""

        def __init__(self, engine):
            self.engine = engine

        async def _get_trace_headers(self, headers):
            found = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
            return found or None

        async def _check_model(self, request):
            return None if request.model == "known" else "no such model"

        async def create(self, request, headers, params):
            if (error := await self._check_model(request)) is not None:
                return error
            await asyncio.sleep(0)
            traced = await self._get_trace_headers(headers)
            return self.engine.generate(request.prompt, params, request.id, trace_headers=traced, priority=3)

    return Engine, Serving


@pytest.fixture
def server():
    engine, serving = classes()
    frontend = Frontend(SALT)
    frontend.follow_engine(engine)
    frontend.follow_server(serving)
    return serving(engine())


async def serve(server, id_, headers=None, user=None, params=None, model="known"):
    """Handles a request as vLLM's routes do: the endpoint in a task of its own, the answer read outside of it."""
    request = SimpleNamespace(id=id_, prompt=f"prompt of {id_}", user=user, model=model)
    handler = asyncio.create_task(server.create(request, headers or {}, params or Parameters()))
    answer = await handler
    return answer if isinstance(answer, str) else [chunk async for chunk in answer]


def passport(server, id_):
    return read(server.engine.got[id_].params)


def test_concurrent_requests_keep_their_own_trace_and_caller(server):
    async def all_at_once():
        await asyncio.gather(
            *(
                serve(
                    server,
                    f"r{i}",
                    headers={"traceparent": traceparent(i)} if i % 3 else {},
                    user=f"user {i}" if i % 2 else None,
                )
                for i in range(60)
            )
        )

    asyncio.run(all_at_once())
    for i in range(60):
        got = passport(server, f"r{i}")
        assert got.request_id == f"r{i}"
        assert int.from_bytes(got.trace_id) == (i + 1 if i % 3 else 0)
        assert int.from_bytes(got.span_id) == (i + 1 if i % 3 else 0)
        assert got.cluster_key == (cluster_key(SALT, user=f"user {i}") if i % 2 else None)


def test_requests_one_after_the_other_in_one_task_leave_each_other_nothing(server):
    async def one_after_the_other():
        headers = {"traceparent": traceparent(0), "authorization": "Bearer k"}
        await serve(server, "first", headers, user="someone")
        await serve(server, "second", {"authorization": "Bearer k"})
        await serve(server, "third")

    asyncio.run(one_after_the_other())
    assert passport(server, "first").cluster_key == cluster_key(SALT, user="someone")
    assert passport(server, "second").cluster_key == cluster_key(SALT, api_key="Bearer k")
    third = passport(server, "third")
    assert (third.trace_id, third.span_id, third.cluster_key) == (bytes(16), bytes(8), None)


def test_parameters_that_requests_share_are_cloned_and_never_changed(server):
    shared = Parameters()

    async def both():
        await asyncio.gather(
            *(serve(server, f"r{i}", {"traceparent": traceparent(i)}, params=shared) for i in range(2))
        )

    asyncio.run(both())
    assert shared.extra_args is None
    assert [int.from_bytes(passport(server, f"r{i}").trace_id) for i in range(2)] == [1, 2]


@pytest.mark.parametrize("user", [None, "someone"])
@pytest.mark.parametrize("headers", [{}, {"traceparent": traceparent(0), "tracestate": "a=b"}])
def test_the_engine_gets_all_else_as_without_us(server, headers, user):
    answer = asyncio.run(serve(server, "r", {**headers, "authorization": "Bearer k"}, user=user))
    got = server.engine.got["r"]
    assert answer == ["prompt of r!"]
    assert (got.prompt, got.priority) == ("prompt of r", 3)
    assert got.trace_headers == (headers or None)
    assert type(got.trace_headers) in (dict, type(None))


def test_a_refusal_of_the_endpoint_is_passed_on(server):
    assert asyncio.run(serve(server, "r", model="other")) == "no such model"
    assert server.engine.got == {}


class Unreadable(dict):
    """Headers that cannot be asked for what only we ask for."""

    def get(self, name, _=None):
        raise RuntimeError(name)


def test_what_fails_here_fails_no_request_and_is_logged_once(server, caplog):
    async def twice():
        return [await serve(server, f"r{i}", Unreadable(traceparent=traceparent(i))) for i in range(2)]

    assert asyncio.run(twice()) == [["prompt of r0!"], ["prompt of r1!"]]
    assert [int.from_bytes(passport(server, f"r{i}").trace_id) for i in range(2)] == [1, 2]
    assert len(caplog.records) == 1


def test_parameters_that_take_no_passport_reach_the_engine_as_they_are(server):
    params = object()
    asyncio.run(serve(server, "r", {"traceparent": traceparent(0)}, params=params))
    assert server.engine.got["r"].params is params


def test_arguments_may_come_by_name(server):
    params = Parameters()

    async def by_name():
        return [
            chunk
            async for chunk in server.engine.generate(
                prompt="p", sampling_params=params, request_id="r", trace_headers=None
            )
        ]

    assert asyncio.run(by_name()) == ["p!"]
    assert passport(server, "r").request_id == "r"
