"""What the queue's scripts publish, heard by this process: wake-ups, orders, changes of jobs.

Redis pub/sub forgets: whoever listens re-reads after each connection and, slowly, without one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from easel_kit.ids import JobId, ModelKey
from easel_kit.log import get_logger
from scheduler.ports import SignalHandler
from scheduler.storage.codec import control_from_redis, progress_from_redis

_RECONNECT_S = 0.2
_CONFIRM_S = 1.0
_LISTEN_S = 5.0
_OPENED = b"opened"

_log = get_logger(__name__)


class RedisSignals:
    """`ports.Signals` on Redis pub/sub: one connection for the whole process."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        """`prefix` is that of the lane's keys."""
        self._redis = redis
        self._wake = f"{prefix}wake"
        self._control = f"{prefix}control"
        self._job = f"{prefix}job:"
        self._watched: Counter[JobId] = Counter()
        self._confirmed: dict[str, asyncio.Event] = {}
        self._pubsub: PubSub | None = None
        self._sending = asyncio.Lock()

    async def watch(self, job_id: JobId) -> None:
        """See `ports.Signals`. While Redis is away it returns all the same: watchers re-read."""
        self._watched[job_id] += 1
        channel = self._job + job_id
        confirmed = self._confirmed.setdefault(channel, asyncio.Event())
        if self._watched[job_id] == 1:
            await self._follow(job_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONFIRM_S):
                await confirmed.wait()

    async def unwatch(self, job_id: JobId) -> None:
        """See `ports.Signals`."""
        self._watched[job_id] -= 1
        if self._watched[job_id] <= 0:
            del self._watched[job_id]
            self._confirmed.pop(self._job + job_id, None)
            await self._follow(job_id)

    async def _follow(self, job_id: JobId) -> None:
        # one at a time, and by what holds now: a watch and an unwatch may meet
        async with self._sending:
            if self._pubsub is None:
                return
            channel = self._job + job_id
            with suppress(RedisError, OSError):
                if job_id in self._watched:
                    await self._pubsub.subscribe(channel)
                else:
                    await self._pubsub.unsubscribe(channel)

    async def run(self, handler: SignalHandler) -> None:
        """Tells the handler until cancelled, connecting again after losses."""
        while True:
            try:
                await self._listen(handler)
            except (RedisError, OSError) as error:
                _log.warning("signals.lost", reason=type(error).__name__)
            for confirmed in self._confirmed.values():
                confirmed.clear()
            await asyncio.sleep(_RECONNECT_S)

    async def _listen(self, handler: SignalHandler) -> None:
        pubsub = self._redis.pubsub()
        try:
            channels = [self._wake, self._control]
            await pubsub.subscribe(*channels, *(self._job + job for job in self._watched))
            self._pubsub = pubsub
            while True:
                message = await pubsub.get_message(timeout=_LISTEN_S)
                if message is not None:
                    channel = message["channel"].decode()
                    self._heard(handler, message["type"], channel, message["data"])
        finally:
            self._pubsub = None
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _heard(self, handler: SignalHandler, kind: str, channel: str, data: bytes) -> None:
        if kind == "subscribe":
            if channel == self._wake:
                handler.on_connected()
            elif channel in self._confirmed:
                self._confirmed[channel].set()
        elif kind != "message":
            return
        elif channel == self._wake:
            handler.on_wake(ModelKey(data.decode()))
        elif channel == self._control:
            if data == _OPENED:
                handler.on_connected()
            else:
                handler.on_control(*control_from_redis(data))
        else:
            job_id = JobId(channel.removeprefix(self._job))
            handler.on_job(job_id, progress_from_redis(job_id, data))
