# syntax=docker/dockerfile:1
# vLLM's own image with Introspan in it. Give it the version that you serve with:
#   docker build -f deploy/examples/vllm.Dockerfile --build-arg VLLM_IMAGE=vllm/vllm-openai:v0.32.0 -t vllm-introspan .
# Nothing of vLLM's is exchanged: what Introspan requires vLLM brings, see docs/compatibility.md, and the last step has no
# index to fetch anything else from. Where something is missing it is the build that fails. User, entry point and
# everything else stay as they are.
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY sdk sdk
COPY collector collector
COPY protos protos
RUN uv build --wheel --out-dir /wheels

FROM ${VLLM_IMAGE} AS vllm
# --system is what vLLM's documentation says for packages beside its own; an image with a virtual environment needs none.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    uv pip install --system --no-cache --offline --no-index /wheels/introspan-*.whl \
 && python3 -c 'from importlib.metadata import entry_points; entry_points(group="vllm.general_plugins")["introspan"].load()'
