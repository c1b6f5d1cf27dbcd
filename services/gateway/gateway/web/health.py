"""Routes for machines that watch over the gateway."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from easel_kit.errors import DependencyDown
from gateway.web.context import ServicesOf
from gateway.web.openapi import problems
from gateway.web.schemas.base import StatusOut

router = APIRouter(tags=["operations"])
metrics_router = APIRouter(tags=["operations"])


@router.get(
    "/healthz",
    operation_id="getHealth",
    summary="Does the process live",
    responses=problems(caller=False),
)
async def get_health() -> StatusOut:
    """Asks nobody else."""
    return StatusOut(status="ok")


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Should requests be sent here",
    responses=problems(caller=False),
)
async def get_readiness(services: ServicesOf) -> StatusOut:
    """Needs what every request needs: keys to verify tokens with. Says no while stopping."""
    if services.stop.is_set():
        raise DependencyDown("stopping")
    if not services.verifier.ready:
        raise DependencyDown("the token issuer's keys were not read yet")
    return StatusOut(status="ready")


@metrics_router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=problems(caller=False)
    | {200: {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics() -> Response:
    """All metrics of this process."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
