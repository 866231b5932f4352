"""Claims on OpenTelemetry's way in, in programs of their own against small likenesses of vLLM's modules."""

from importlib.metadata import entry_points

import pytest
from opentelemetry.instrumentation.dependencies import get_dependency_conflicts
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from tests import likeness

SERVE = """
import asyncio, json
from types import SimpleNamespace
from vllm.engine.arg_utils import EngineArgs

async def serve():
    EngineArgs().create_engine_config()
    from vllm.v1.engine.async_llm import AsyncLLM
    engine = AsyncLLM()
    from vllm.entrypoints.serve.engine.serving import BaseServing
    serving = BaseServing()
    await serving._check_model(SimpleNamespace(user="ann"))
    headers = await serving._get_trace_headers({"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"})
    async for _ in engine.generate("p", SimpleNamespace(extra_args=None), "r", trace_headers=headers):
        pass
    return (engine.got.extra_args or {}).get("introspan")
"""

CLASSES = """
from vllm.engine.arg_utils import EngineArgs
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.v1.engine.async_llm import AsyncLLM
methods = lambda: [dict(vars(owner)) for owner in (EngineArgs, BaseServing, AsyncLLM)]
"""

INSTRUMENT = "from introspan.instrumentor import IntrospanInstrumentor as I\n"


@pytest.fixture
def program(tmp_path):
    """Runs Python with the likeness of vLLM; returns what it printed as JSON last, and its standard error."""
    return likeness.write(tmp_path)


def test_the_entry_point_is_an_instrumentor_whose_host_is_installed_here():
    (entry,) = entry_points(group="opentelemetry_instrumentor", name="introspan")
    instrumentor = entry.load()()
    assert isinstance(instrumentor, BaseInstrumentor)
    assert get_dependency_conflicts(instrumentor.instrumentation_dependencies()) is None


def test_opentelemetry_instrument_imports_neither_vllm_nor_torch_nor_grpc_of_its_own(program):
    script = (
        "import json, sys; heavy = [name for name in ('vllm', 'torch', 'grpc') if name in sys.modules]; "
        "print(json.dumps(['introspan.instrumentor' in sys.modules, heavy]))"
    )
    assert program(script, auto=True)[0] == [True, []]


@pytest.mark.parametrize("plugins", ["", "another"])
def test_requests_carry_trace_and_caller_where_the_allow_list_leaves_the_plugin_out(program, plugins):
    passport, log = program(
        SERVE + "print(json.dumps(asyncio.run(serve())))", auto=True, VLLM_PLUGINS=plugins
    )
    assert passport[:3] == ["r", "1" * 32, "2" * 16]
    assert passport[3] is not None
    assert "VLLM_PLUGINS must name introspan" in log


def test_without_it_requests_carry_nothing(program):
    assert program(SERVE + "print(json.dumps(asyncio.run(serve())))")[0] is None


@pytest.mark.parametrize(
    "off",
    [
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask, introspan"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"},
        {"OTEL_SDK_DISABLED": "true"},
        {"INTROSPAN_ENABLED": "off"},
        {"INTROSPAN_ENDPOINT": ""},
    ],
)
@pytest.mark.parametrize("auto", [True, False])
def test_every_switch_that_turns_capture_off_turns_it_off(program, off, auto):
    # Without the command, as a program that asks for it by itself.
    script = ("" if auto else INSTRUMENT + "I().instrument()\n") + SERVE
    assert program(script + "print(json.dumps(asyncio.run(serve())))", auto=auto, **off)[0] is None


def test_uninstrumenting_restores_every_method_and_instrumenting_again_goes_on_with_the_same_callers(program):
    script = f"""{CLASSES}{INSTRUMENT}{SERVE}
before = methods()
I().instrument()
first = asyncio.run(serve())
assert methods() != before
I().uninstrument()
assert methods() == before, "not restored"
assert asyncio.run(serve()) is None
I().instrument()
second = asyncio.run(serve())
I().uninstrument()
assert methods() == before, "not restored"
print(json.dumps([first, second]))
"""
    first, second = program(script)[0]
    assert first == second
    assert first[0] == "r"


@pytest.mark.parametrize("order", ["register(); I().instrument()", "I().instrument(); register()"])
def test_plugin_and_instrumentor_attach_once_and_uninstrumenting_leaves_the_workers(program, order):
    script = f"""{CLASSES}{INSTRUMENT}{SERVE}
from introspan.plugin import register
from vllm.v1.worker.worker_base import WorkerWrapperBase
before, worker = methods(), WorkerWrapperBase.init_device
{order}
passport = asyncio.run(serve())
depth = lambda f: 1 + depth(f.__wrapped__) if hasattr(f, "__wrapped__") else 0
depths = [depth(EngineArgs.create_engine_config), depth(AsyncLLM.generate), depth(BaseServing._check_model)]
I().uninstrument()
assert methods() == before
assert WorkerWrapperBase.init_device.__wrapped__ is worker
print(json.dumps([depths, passport[0]]))
"""
    assert program(script)[0] == [[1, 1, 1], "r"]


def test_a_wrapper_that_somebody_put_around_ours_stays_and_ours_does_nothing_more(program):
    script = f"""{CLASSES}{INSTRUMENT}{SERVE}
I().instrument()
asyncio.run(serve())
ours, calls = AsyncLLM.generate, []
def theirs(*args, **kwargs):
    calls.append(1)
    return ours(*args, **kwargs)
AsyncLLM.generate = theirs
I().uninstrument()
assert AsyncLLM.generate is theirs
print(json.dumps([asyncio.run(serve()), calls]))
"""
    assert program(script)[0] == [None, [1]]


def test_a_host_of_another_build_is_served_as_it_is_and_the_log_says_so(program, tmp_path):
    (tmp_path / "vllm" / "v1" / "engine" / "async_llm.py").write_text("")
    script = """
import json
from vllm.engine.arg_utils import EngineArgs
print(json.dumps(EngineArgs().create_engine_config().additional_config != {}))
"""
    assert program(script, auto=True)[1].count("the server runs without capture") == 1
