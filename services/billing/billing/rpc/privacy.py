"""PrivacyService: types in, use case, types out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from billing.domain.privacy import Erasure, ErasureState
from billing.service.privacy import Privacy
from easel.billing.v1 import privacy_pb2 as pb
from easel.billing.v1 import privacy_pb2_grpc
from easel_kit.ids import user_id
from easel_kit.log import get_logger

_log = get_logger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["PrivacyService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]

_STATES = {
    ErasureState.REQUESTED: pb.ERASURE_STATE_REQUESTED,
    ErasureState.SETTLED: pb.ERASURE_STATE_SETTLED,
    ErasureState.CANCELLED: pb.ERASURE_STATE_CANCELLED,
    ErasureState.DONE: pb.ERASURE_STATE_DONE,
}


class PrivacyServicer(privacy_pb2_grpc.PrivacyServiceServicer):
    """Thin: decisions are in `service`."""

    def __init__(self, privacy: Privacy) -> None:
        """`privacy` answers."""
        self._privacy = privacy

    async def ExportAccount(  # noqa: N802
        self, request: pb.ExportAccountRequest, context: Context
    ) -> AsyncIterator[pb.ExportAccountResponse]:
        """Everything on the user, in parts."""
        del context
        async with await self._privacy.export(user_id(request.user_id)) as parts:
            async for part in parts:
                yield pb.ExportAccountResponse(data=part.encode())

    async def EraseAccount(  # noqa: N802
        self, request: pb.EraseAccountRequest, context: Context
    ) -> pb.EraseAccountResponse:
        """Begins the erasure."""
        del context
        erasure = await self._privacy.erase(user_id(request.user_id))
        _log.info("erasure.requested", erasure_id=erasure.id, state=erasure.state.value)
        return pb.EraseAccountResponse(erasure=_erasure_to(erasure))

    async def GetErasure(  # noqa: N802
        self, request: pb.GetErasureRequest, context: Context
    ) -> pb.GetErasureResponse:
        """How far it is."""
        del context
        erasure = await self._privacy.erasure(user_id(request.user_id))
        return pb.GetErasureResponse(erasure=_erasure_to(erasure))


def register(server: grpc.aio.Server, privacy: Privacy) -> None:
    """Makes `server` answer for `SERVICE`."""
    privacy_pb2_grpc.add_PrivacyServiceServicer_to_server(PrivacyServicer(privacy), server)


def _erasure_to(erasure: Erasure) -> pb.Erasure:
    return pb.Erasure(
        state=_STATES[erasure.state],
        requested_at=_timestamp(erasure.requested_at),
        finished_at=None if erasure.finished_at is None else _timestamp(erasure.finished_at),
    )


def _timestamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
