"""Where webhooks are kept until they are worked off."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from billing.domain.payments import Notice


class Inbox(Protocol):
    """Webhooks by their event id."""

    async def keep(self, notice: Notice, now: datetime) -> bool:
        """Keeps a webhook; False for one that is known already, which changes nothing."""
        ...
