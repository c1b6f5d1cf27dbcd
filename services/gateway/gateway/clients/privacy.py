"""Billing's part of a person over gRPC: the port `AccountPrivacy`."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc

from easel.billing.v1 import privacy_pb2 as pb
from easel.billing.v1.privacy_pb2_grpc import PrivacyServiceStub
from easel_kit.ids import UserId

# Of a whole export: every ledger line of years, and a slow reader.
_EXPORT_TIMEOUT_S = 600.0


class AccountPrivacyClient:
    """Calls billing on a channel of `easel_kit.rpc.channel`, which gives deadlines and errors."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """The channel stays its opener's."""
        self._stub = PrivacyServiceStub(channel)

    async def export_account(self, user_id: UserId) -> AsyncGenerator[bytes, None]:
        """See `gateway.ports.AccountPrivacy`."""
        request = pb.ExportAccountRequest(user_id=user_id)
        call = self._stub.ExportAccount(request, timeout=_EXPORT_TIMEOUT_S)
        try:
            async for part in call:
                yield part.data
        finally:
            call.cancel()

    async def erase_account(self, user_id: UserId) -> bool:
        """See `gateway.ports.AccountPrivacy`."""
        answer = await self._stub.EraseAccount(pb.EraseAccountRequest(user_id=user_id))
        return answer.erasure.state == pb.ERASURE_STATE_DONE
