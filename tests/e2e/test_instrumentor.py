"""`opentelemetry-instrument` before a real engine: its requests carry trace and caller, `VLLM_PLUGINS` or not."""

import json
import os
import subprocess
import sys
from pathlib import Path

from engine import QUIET
from tiny_models import write

SERVE = """
import asyncio, json, os, sys
from types import SimpleNamespace

async def main():
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        sys.argv[1], dtype="float32", enforce_eager=True, skip_tokenizer_init=True, max_model_len=128
    )
    config = arguments.create_engine_config()
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"  # else vLLM is imported three times
    engine = AsyncLLM.from_vllm_config(config)
    from vllm.entrypoints.serve.engine.serving import BaseServing

    sent, send = [], engine.engine_core.add_request_async
    async def record(request):
        sent.append(request.sampling_params.extra_args)
        return await send(request)
    engine.engine_core.add_request_async = record

    # What an endpoint needs of itself to be asked about a model.
    endpoint = SimpleNamespace(request_logger=None, _is_model_supported=lambda _: True)
    await BaseServing._check_model(endpoint, SimpleNamespace(model="m", user="ann"))
    traced = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    headers = await BaseServing._get_trace_headers(endpoint, traced)
    params = SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True)
    async for output in engine.generate({"prompt_token_ids": [3, 4, 5]}, params, "r", trace_headers=headers):
        answer = list(output.outputs[0].token_ids)
    engine.shutdown()
    print(json.dumps([sent, headers, len(answer)]))

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_requests_of_a_real_engine_carry_trace_and_caller_where_the_allow_list_leaves_the_plugin_out(
    tmp_path,
):
    model = write("llama", tmp_path / "tiny")
    script = tmp_path / "serve.py"
    script.write_text(SERVE)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("INTROSPAN_", "OTEL_"))}
    environ |= QUIET | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_PLUGINS": "another",
        "INTROSPAN_ENDPOINT": "127.0.0.1:1",
    }
    command = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    done = subprocess.run(
        [command, sys.executable, script, model],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (extra,), _, generated = json.loads(done.stdout.splitlines()[-1])
    request_id, trace, span, caller = extra["introspan"]
    assert (request_id, trace, span) == ("r", "1" * 32, "2" * 16)
    assert caller is not None
    assert generated == 3
    assert "VLLM_PLUGINS must name introspan" in done.stderr
