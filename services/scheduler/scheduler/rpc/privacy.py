"""`easel.scheduler.v1.PrivacyService`: what the law gives a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from structlog.contextvars import bind_contextvars

from easel.scheduler.v1 import privacy_pb2
from easel.scheduler.v1.privacy_pb2_grpc import PrivacyServiceServicer
from easel_kit import ids
from easel_kit.erasure import UserHash
from easel_kit.errors import InvalidInput
from easel_kit.log import get_logger
from scheduler.rpc import mapping
from scheduler.service.privacy import Privacy

SERVICE = privacy_pb2.DESCRIPTOR.services_by_name["PrivacyService"].full_name

_MAX_HASHES = 1_000
_HASH_BYTES = 32

_log = get_logger(__name__)

_Context = grpc.aio.ServicerContext[Any, Any]


class PrivacyServicer(PrivacyServiceServicer):
    """Thin: checks, calls, maps."""

    def __init__(self, privacy: Privacy) -> None:
        """The use cases behind it."""
        self._privacy = privacy

    async def ExportJobs(  # noqa: N802
        self, request: privacy_pb2.ExportJobsRequest, context: _Context
    ) -> AsyncIterator[privacy_pb2.ExportJobsResponse]:
        """All jobs of the user that are kept, oldest first."""
        del context
        bind_contextvars(user_id=request.user_id)
        async for jobs in self._privacy.export(ids.user_id(request.user_id)):
            yield privacy_pb2.ExportJobsResponse(jobs=[mapping.job_to_wire(job) for job in jobs])

    async def EraseUsers(  # noqa: N802
        self, request: privacy_pb2.EraseUsersRequest, context: _Context
    ) -> privacy_pb2.EraseUsersResponse:
        """Removes all that is kept of the users."""
        del context
        asked = _user_hashes(request.user_hashes)
        found = await self._privacy.erase(asked)
        _log.info("users.erased", asked=len(asked), erased=found.erased, busy=found.busy)
        return privacy_pb2.EraseUsersResponse(erased=found.erased, busy=found.busy)


def _user_hashes(wire: Sequence[bytes]) -> set[UserHash]:
    if not 1 <= len(wire) <= _MAX_HASHES:
        raise InvalidInput("user_hashes", f"must be 1 to {_MAX_HASHES}")
    if any(len(one) != _HASH_BYTES for one in wire):
        raise InvalidInput("user_hashes", f"must be of {_HASH_BYTES} bytes each")
    return {UserHash(one) for one in wire}
