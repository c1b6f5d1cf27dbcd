"""Puts the servicers on a server."""

from __future__ import annotations

import grpc

from easel.scheduler.v1.events_pb2_grpc import add_EventServiceServicer_to_server
from easel.scheduler.v1.jobs_pb2_grpc import add_JobServiceServicer_to_server
from easel.scheduler.v1.lease_pb2_grpc import add_LeaseServiceServicer_to_server
from easel.scheduler.v1.privacy_pb2_grpc import add_PrivacyServiceServicer_to_server
from scheduler.rpc.events import EventServicer
from scheduler.rpc.jobs import JobServicer
from scheduler.rpc.leases import LeaseServicer
from scheduler.rpc.privacy import SERVICE as PRIVACY_SERVICE
from scheduler.rpc.privacy import PrivacyServicer

SERVICES = (
    "easel.scheduler.v1.JobService",
    "easel.scheduler.v1.LeaseService",
    "easel.scheduler.v1.EventService",
    PRIVACY_SERVICE,
)
"""Full names, for health and reflection."""


def register(
    server: grpc.aio.Server,
    jobs: JobServicer,
    leases: LeaseServicer,
    events: EventServicer,
    privacy: PrivacyServicer,
) -> None:
    """Registers all of them; call it before the server starts."""
    add_JobServiceServicer_to_server(jobs, server)
    add_LeaseServiceServicer_to_server(leases, server)
    add_EventServiceServicer_to_server(events, server)
    add_PrivacyServiceServicer_to_server(privacy, server)
