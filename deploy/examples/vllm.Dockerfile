# vLLM's own image with Introspan in it. Give it the version that you serve with:
#   docker build -f deploy/examples/vllm.Dockerfile --build-arg VLLM_IMAGE=vllm/vllm-openai:v0.32.0 -t vllm-introspan .
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0
FROM ${VLLM_IMAGE}
COPY pyproject.toml README.md LICENSE /src/
COPY sdk /src/sdk
COPY collector /src/collector
COPY protos /src/protos
# What vLLM's documentation says for packages beside its own; an image with a virtual environment needs no --system.
RUN uv pip install --system --no-cache /src
