# The token issuer of local stacks (a token for whoever asks) and, as another command of the same
# image, the stand-in of Stripe: never for production.
# Build from the repository's root:
#   docker build -f deploy/docker/issuer.Dockerfile -t easel-issuer .
# BASE is any image with Python 3.11 or newer, its venv and pip, on Debian.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
# what others made: a layer that a change of our code keeps
COPY constraints.txt deploy/scripts/requirements.py ./
COPY protos/pyproject.toml protos/
COPY services/kit/pyproject.toml services/kit/
COPY deploy/local/pyproject.toml deploy/local/
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /venv \
 && python requirements.py protos services/kit deploy/local > requirements.txt \
 && pip --python /venv/bin/python install -r requirements.txt
# what we made
COPY protos/gen protos/gen
COPY services/kit services/kit
COPY deploy/local deploy/local
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel -q --no-deps -w /wheels ./protos ./services/kit ./deploy/local \
 && pip --python /venv/bin/python install --no-deps /wheels/*.whl \
 && pip --python /venv/bin/python check

FROM ${BASE}
RUN groupadd --system --gid 10001 easel \
 && useradd --system --uid 10001 --gid easel --home-dir /tmp --no-create-home easel
# a new volume takes over the owner of the folder it is mounted on
RUN install -d -o easel -g easel -m 700 /var/lib/easel/issuer /var/lib/easel/stripe
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ISSUER_LISTEN=0.0.0.0:9000 ISSUER_KEY_FILE=/var/lib/easel/issuer/key.pem \
    STRIPE_LISTEN=0.0.0.0:9010 STRIPE_STATE_FILE=/var/lib/easel/stripe/state.json
USER 10001:10001
EXPOSE 9000 9010
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=6 \
    CMD ["python", "-m", "easel_kit.probe", "http://127.0.0.1:9000/healthz"]
ENTRYPOINT ["python", "-m", "easel_local.issuer"]
CMD ["serve"]
