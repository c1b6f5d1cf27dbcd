"""Delivers events: signed as Stripe signs, in the background, again until somebody says 2xx.

The signature: https://docs.stripe.com/webhooks#verify-manually.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import hmac
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import httpx

from easel_kit.log import get_logger
from easel_local.stripe.faults import Faults
from easel_local.stripe.objects import Obj, new_id, public
from easel_local.stripe.world import World

Send = Callable[[bytes, str], Awaitable[int]]
"""Delivers a payload with its signature; answers the status."""

_TIMEOUT_S = 10.0
_SIDE_BY_SIDE = 16
_LONGEST_PAUSE_S = 3_600.0
_MAX_KEPT = 20_000
_log = get_logger(__name__)


@dataclass(slots=True)
class Delivery:
    """One event on its way. `statuses` holds what each attempt came to; 0: no answer."""

    id: str
    event: str
    type: str
    state: Literal["pending", "delivered", "dropped", "given_up"] = "pending"
    statuses: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Delivering:
    """How it is delivered.

    Attributes:
        secrets: of the endpoint; each signs (two while one is being replaced).
        first_pause_s: before the second attempt; doubled each time, up to an hour.
        attempts: before it is given up.
        signs_with: whose time the signature carries: the machine's, or the stand-in's own clock.
    """

    secrets: tuple[str, ...]
    first_pause_s: float = 1.0
    attempts: int = 16
    signs_with: Literal["system", "stand-in"] = "system"


def sign(payload: bytes, secrets: tuple[str, ...], now: int) -> str:
    """The header ``Stripe-Signature``."""
    signed = f"{now}.".encode() + payload
    macs = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={now}", *(f"v1={mac}" for mac in macs)])


class Courier:
    """Takes events from the world to whoever listens."""

    def __init__(self, world: World, faults: Faults, how: Delivering, url: str = "") -> None:
        """Deliver to url, which may be set later; without one, or `send`, nothing is kept."""
        self.url = url
        self.send: Send | None = None
        self.how = how
        self.deliveries: dict[str, Delivery] = {}
        self._world = world
        self._faults = faults
        self._due: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._pending = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._client: httpx.AsyncClient | None = None
        world.listeners.append(self._take)

    def _take(self, event: Obj) -> None:
        if not self.url and self.send is None:
            return
        wanted = self._faults.plan.deliveries
        dropped = self._faults.happens(wanted.drop)
        for _ in range(2 if self._faults.happens(wanted.duplicate) else 1):
            delivery = Delivery(new_id("del"), event["id"], event["type"])
            self.deliveries[delivery.id] = delivery
            if dropped:
                delivery.state = "dropped"
                continue
            late_s = wanted.delay_s
            if self._faults.happens(wanted.reorder):
                late_s += self._faults.up_to(wanted.reorder_s)
            self._put(delivery, late_s)
        while len(self.deliveries) > _MAX_KEPT:
            del self.deliveries[next(iter(self.deliveries))]

    def _put(self, delivery: Delivery, late_s: float) -> None:
        self._pending += 1
        self._quiet.clear()
        due = (time.monotonic() + late_s, next(self._order), delivery.id)
        heapq.heappush(self._due, due)
        self._wake.set()

    def redeliver(self, delivery: Delivery) -> None:
        """Send it once more, whatever became of it."""
        delivery.state = "pending"
        self._put(delivery, 0)

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
            self._client = client
            while True:
                now = time.monotonic()
                batch: list[str] = []
                while self._due and self._due[0][0] <= now and len(batch) < _SIDE_BY_SIDE:
                    batch.append(heapq.heappop(self._due)[2])
                if batch:
                    await asyncio.gather(*map(self._attempt, batch))
                else:
                    await self._sleep(now)

    async def _sleep(self, now: float) -> None:
        self._wake.clear()
        pause_s = self._due[0][0] - now if self._due else None
        try:
            await asyncio.wait_for(self._wake.wait(), pause_s)
        except TimeoutError:
            return

    async def settled(self) -> None:
        """Wait until nothing is on its way any more; retries count as being on their way."""
        await self._quiet.wait()

    async def _attempt(self, delivery_id: str) -> None:
        delivery = self.deliveries.get(delivery_id)
        event = None if delivery is None else self._world.find("event", delivery.event)
        try:
            if delivery is not None and event is not None:
                await self._try(delivery, event)
        finally:
            self._pending -= 1
            if not self._pending:
                self._quiet.set()
            self._world.version += 1

    async def _try(self, delivery: Delivery, event: Obj) -> None:
        wanted = self._faults.plan.deliveries
        status = 0
        if not self._faults.happens(wanted.fail):
            status = await self._post(event)
            if self._faults.happens(wanted.lose_answer):
                status = 0
        delivery.statuses.append(status)
        if httpx.codes.is_success(status):
            delivery.state = "delivered"
        elif len(delivery.statuses) >= self.how.attempts:
            delivery.state = "given_up"
            _log.warning("webhook.given_up", event_id=delivery.event, type=delivery.type)
        else:
            doubled = 2.0 ** (len(delivery.statuses) - 1)
            self._put(delivery, min(_LONGEST_PAUSE_S, self.how.first_pause_s * doubled))

    async def _post(self, event: Obj) -> int:
        payload = json.dumps(public(event), indent=2).encode()
        by_system = self.how.signs_with == "system"
        now = int(time.time()) if by_system else self._world.clock.now()
        signature = sign(payload, self.how.secrets, now)
        if self.send is not None:
            return await self.send(payload, signature)
        if not self.url or self._client is None:
            return 0
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature,
            "User-Agent": "Stripe/1.0 (stand-in)",
        }
        try:
            answer = await self._client.post(self.url, content=payload, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL):
            return 0
        return answer.status_code

    def dump(self) -> list[dict[str, Any]]:
        """All deliveries, for `load`."""
        return [asdict(delivery) for delivery in self.deliveries.values()]

    def load(self, kept: list[dict[str, Any]]) -> None:
        """Know what was dumped, and go on with what was on its way."""
        for fields in kept:
            delivery = Delivery(**fields)
            self.deliveries[delivery.id] = delivery
            if delivery.state == "pending":
                self._put(delivery, 0)
