"""The FastAPI application: routes, handlers, middleware, description."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from easel_kit.errors import DomainError
from gateway.web import (
    account,
    billing,
    docs,
    estimates,
    events,
    generations,
    health,
    images,
    models,
    objects,
    queue,
    webhooks,
)
from gateway.web.context import Services
from gateway.web.middleware import Edge
from gateway.web.openapi import complete
from gateway.web.problems import on_domain_error, on_http_error, on_validation_error

_DESCRIPTION = """
Pictures from words. Submit a generation, watch it form, fetch the picture.

Errors are `application/problem+json` (RFC 9457); their `type` never changes.
"""


class _Api(FastAPI):
    """FastAPI, with problems described as problems."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return complete(super().openapi())


def build_app(
    services: Services,
    *,
    version: str,
    public_url: str,
    cors_origins: tuple[str, ...],
    expose_metrics: bool,
    max_requests: int,
    max_body_bytes: int,
    max_upload_bytes: int,
) -> FastAPI:
    """The application over its services.

    Args:
        services: use cases and guards.
        version: of the API's description.
        public_url: where clients reach it; empty: wherever they did.
        cors_origins: web origins that may call from a browser.
        expose_metrics: whether `/metrics` is served.
        max_requests: served at once.
        max_body_bytes: of a request.
        max_upload_bytes: of a request that uploads a picture.
    """
    app = _Api(
        title="Easel",
        version=version,
        description=_DESCRIPTION,
        servers=[{"url": public_url}] if public_url else None,
        docs_url=None,
        redoc_url=None,
        # spans, logs and metrics are the middleware's
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    for module in (
        estimates,
        generations,
        queue,
        events,
        images,
        models,
        account,
        billing,
        webhooks,
        health,
        docs,
    ):
        app.include_router(module.router)
    if expose_metrics:
        app.include_router(health.metrics_router)
    if services.local_objects is not None:
        app.include_router(objects.router)
    app.add_exception_handler(DomainError, on_domain_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(events.StreamIsOver, events.on_stream_is_over)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "Last-Event-ID",
                "Prefer",
            ],
            expose_headers=[
                "Content-Disposition",
                "Location",
                "Preference-Applied",
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "X-Request-Id",
            ],
            max_age=600,
        )
    app.add_middleware(
        Edge,
        max_requests=max_requests,
        max_body_bytes=max_body_bytes,
        other_bodies={
            ("POST", images.UPLOAD_PATH): max_upload_bytes,
            ("POST", webhooks.STRIPE_PATH): webhooks.MAX_STRIPE_BYTES,
        },
    )
    return app
