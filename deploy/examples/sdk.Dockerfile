# syntax=docker/dockerfile:1
# Introspan alone, for an init container that lends it to vLLM's own image:
#   docker build -f deploy/examples/sdk.Dockerfile -t introspan-sdk .
# It is Python and nothing else, so that one image fits every Python of vLLM's; what it requires vLLM brings, see
# docs/compatibility.md. deploy/examples/vllm-init-container.yaml uses it.
FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY sdk sdk
COPY collector collector
COPY protos protos
RUN uv build --wheel --out-dir /wheels \
 && uv pip install --python /usr/local/bin/python3 --no-cache --offline --no-deps --target /sdk /wheels/introspan-*.whl

FROM busybox:1.37 AS sdk
COPY --from=build /sdk /sdk
USER 10001:10001
ENTRYPOINT ["cp", "-R", "/sdk/.", "/introspan"]
