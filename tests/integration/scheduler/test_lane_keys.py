"""Everything that a lane's scripts touch lies under its hash tag, so in one slot of a cluster.

Redis itself checks: its user may use keys and channels of this lane, and no others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from easel_kit.errors import DependencyDown
from scheduler.storage.leases import RedisLeases
from scheduler.storage.queue import RedisLine
from scheduler.storage.scripts import Scripts
from tests.fakes.scheduler import open_lane
from tests.fakes.scheduler_oracle import Both, W
from tests.fakes.scheduler_queue import PARKING

_LANE = "easel:{default}:*"


@pytest.fixture
async def fenced(redis_url: str) -> AsyncIterator[Redis]:
    """A client that may use keys and channels of the lane alone."""
    async with Redis.from_url(redis_url) as admin:
        rules = ("reset", "on", ">secret", f"~{_LANE}", "resetchannels", f"&{_LANE}", "+@all")
        await admin.execute_command("ACL", "SETUSER", "lane", *rules)  # type: ignore[no-untyped-call]
        where = urlsplit(redis_url)
        url = f"redis://lane:secret@{where.hostname}:{where.port}{where.path}"
        async with Redis.from_url(url) as redis:
            yield redis
        await admin.acl_deluser("lane")


async def test_scripts_touch_only_keys_of_their_lane(fenced: Redis) -> None:
    scripts = Scripts(fenced, "default")
    await open_lane(fenced, scripts)
    both = Both(fenced, scripts)
    await both.join()
    random = Random(1)
    for _ in range(30):
        for name in both.steps:
            await both.step(name, random)
    line = RedisLine(fenced, scripts, lease_ttl_s=1)
    leases = RedisLeases(fenced, scripts, lease_ttl_s=1, parking=PARKING)
    await line.live([job for _, job in await line.known(after=0, limit=50)])
    await line.expired(limit=5)
    await line.overdue(limit=5)
    await line.depth()
    await line.pace()
    await leases.drain(W)
    await line.remind()
    await leases.catalogue_version()
    await leases.workers()
    await leases.leave(W, "s")


async def test_a_script_of_another_lane_would_be_seen(fenced: Redis) -> None:
    with pytest.raises(ResponseError, match="can't access"):
        await fenced.eval("return redis.call('GET', 'easel:{other}:x')", 0)
    with pytest.raises(DependencyDown):
        await open_lane(fenced, Scripts(fenced, "other"))
