"""A running gateway as tests see it, between an issuer and in-memory billing and scheduler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.gateway_billing import FakeBilling
from tests.fakes.gateway_issuer import Issuer
from tests.fakes.gateway_payments import FakePayments
from tests.fakes.gateway_privacy import FakeAccountPrivacy, FakeJobPrivacy
from tests.fakes.gateway_scheduler import FakeScheduler


@dataclass
class Gateway:
    """A running gateway and what is around it."""

    url: str
    stop: asyncio.Event
    issuer: Issuer
    billing: FakeBilling
    payments: FakePayments
    scheduler: FakeScheduler
    accounts: FakeAccountPrivacy
    histories: FakeJobPrivacy
    objects: Path
    http: httpx.AsyncClient

    def auth(self, user: str = "alice", **claims: object) -> dict[str, str]:
        """Headers of a user's request."""
        return {"Authorization": f"Bearer {self.issuer.token(user, **claims)}"}

    async def submit(self, user: str = "alice", **body: object) -> dict[str, Any]:
        """Submits a job that must be accepted."""
        answer = await self.http.post(
            "/v1/generations", json={"prompt": "a red circle"} | body, headers=self.auth(user)
        )
        assert answer.status_code == 202, answer.text
        return dict(answer.json())


Start = Callable[..., contextlib.AbstractAsyncContextManager[Gateway]]


async def until_ready(http: httpx.AsyncClient) -> None:
    """Returns once the gateway has keys to verify with."""
    async with asyncio.timeout(5):
        while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110 (asked over HTTP)
            await asyncio.sleep(0.01)


async def until(holds: Callable[[], bool]) -> None:
    """Returns once that holds."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 (any state of a fake)
            await asyncio.sleep(0.005)
