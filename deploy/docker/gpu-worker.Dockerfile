# The worker: the denoising engine and its loop; the only image with torch.
# Build from the repository's root:
#   docker build -f deploy/docker/gpu-worker.Dockerfile -t easel-gpu-worker .
# BASE is any image with Python 3.11 or newer, its venv and pip, on Debian.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
# Which torch: a wheel that lies in deploy/docker/wheels or that the base's pip is configured to find;
# else the build of TORCH_INDEX, here the one for CPUs (PyPI's for Linux brings gigabytes of CUDA).
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=deploy/docker/wheels,target=/mnt/wheels \
    python -m venv --without-pip /venv \
 && torch() { pip --python /venv/bin/python install --no-deps "torch==$TORCH_VERSION" "$@"; } \
 && { torch --no-index --find-links /mnt/wheels || torch --index-url "$TORCH_INDEX"; }
# what others made: a layer that a change of our code keeps
ENV PIP_CONSTRAINT=/src/constraints.txt
COPY constraints.txt deploy/scripts/requirements.py ./
COPY protos/pyproject.toml protos/
COPY services/kit/pyproject.toml services/kit/
COPY services/gpu-worker/pyproject.toml services/gpu-worker/
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py protos services/kit services/gpu-worker > requirements.txt \
 && pip --python /venv/bin/python install -r requirements.txt
# what we made
COPY protos/gen protos/gen
COPY services/kit services/kit
COPY services/gpu-worker services/gpu-worker
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel -q --no-deps -w /wheels ./protos ./services/kit ./services/gpu-worker \
 && pip --python /venv/bin/python install --no-deps /wheels/*.whl \
 && pip --python /venv/bin/python check

FROM ${BASE}
RUN groupadd --system --gid 10001 easel \
 && useradd --system --uid 10001 --gid easel --home-dir /tmp --no-create-home easel
# a new volume takes over the owner of the folder it is mounted on
RUN install -d -o easel -g easel -m 750 /var/lib/easel/objects
COPY --from=build /venv /venv
COPY services/gpu-worker/models /models
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/tmp/huggingface HF_HUB_OFFLINE=1 \
    WORKER_LISTEN=0.0.0.0:50051 WORKER_METRICS_LISTEN=0.0.0.0:9464 WORKER_MODELS_DIR=/models
USER 10001:10001
EXPOSE 50051 9464
# torch takes its time to load
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=6 \
    CMD ["python", "-m", "easel_kit.probe", "127.0.0.1:50051"]
ENTRYPOINT ["python", "-m", "gpu_worker"]
CMD ["serve"]
