# Build for CPU:  docker build -t curator .
# Build for CUDA: docker build -t curator:cuda --build-arg DEVICE=cuda .
#
# Run in the folder of a project:
#   docker run --rm -it -v "$PWD:/project" curator select
#   docker run --rm -it -v "$PWD:/project" --gpus all curator:cuda select
#
# PyTorch's wheels for Linux contain CUDA. For a small CPU image, pass the address of PyTorch's CPU wheels, which its
# installation page names: --build-arg TORCH_INDEX=ADDRESS
ARG PYTHON=3.12
ARG DEVICE=cpu

FROM python:${PYTHON}-slim AS build
ARG DEVICE
ARG TORCH_INDEX=
WORKDIR /source
COPY pyproject.toml README.md LICENSE MANIFEST.in constraints.txt ./
COPY curator curator
COPY tui tui
# bitsandbytes trains quantized models, which need a CUDA GPU.
RUN case "$DEVICE" in \
        cpu) extra= ;; \
        cuda) extra=bitsandbytes ;; \
        *) echo "DEVICE must be cpu or cuda, not $DEVICE" >&2; exit 2 ;; \
    esac \
    && python -m venv /opt/curator \
    && /opt/curator/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && if [ -n "$extra" ]; then /opt/curator/bin/pip install --no-cache-dir "$extra"; fi \
    && /opt/curator/bin/pip install --no-cache-dir ".[plot,serve,mcp]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/curator /opt/curator
ENV PATH=/opt/curator/bin:$PATH HF_HOME=/cache PYTHONUNBUFFERED=1
# Files in the project belong to this user. Pass `--user "$(id -u):$(id -g)"` to own them yourself.
RUN useradd --create-home curator && mkdir /project /cache && chown curator /project /cache && chmod 1777 /cache
USER curator
WORKDIR /project
VOLUME ["/project", "/cache"]
ENTRYPOINT ["curator"]
CMD ["--help"]
