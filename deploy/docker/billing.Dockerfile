# The ledger: plans, credits, holds.
# Build from the repository's root:
#   docker build -f deploy/docker/billing.Dockerfile -t easel-billing .
# BASE is any image with Python 3.11 or newer, its venv and pip, on Debian.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
# what others made: a layer that a change of our code keeps
COPY constraints.txt deploy/scripts/requirements.py ./
COPY protos/pyproject.toml protos/
COPY services/kit/pyproject.toml services/kit/
COPY services/billing/pyproject.toml services/billing/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /venv \
 && python requirements.py protos "services/kit[migrations]" services/billing > requirements.txt \
 && pip --python /venv/bin/python install -r requirements.txt
# what we made
COPY protos/gen protos/gen
COPY services/kit services/kit
COPY services/billing services/billing
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel -q --no-deps -w /wheels ./protos ./services/kit ./services/billing \
 && pip --python /venv/bin/python install --no-deps /wheels/*.whl \
 && pip --python /venv/bin/python check

FROM ${BASE}
RUN groupadd --system --gid 10001 easel \
 && useradd --system --uid 10001 --gid easel --home-dir /tmp --no-create-home easel
# anchors and tombstones; a new volume takes over the owner of the folder it is mounted on
RUN install -d -o easel -g easel -m 750 /var/lib/easel/audit
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    BILLING_LISTEN=0.0.0.0:50051 BILLING_METRICS_LISTEN=0.0.0.0:9464
USER 10001:10001
EXPOSE 50051 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=6 \
    CMD ["python", "-m", "easel_kit.probe", "127.0.0.1:50051"]
ENTRYPOINT ["python", "-m", "billing"]
CMD ["serve"]
