"""The composition root: settings in, servers out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easel_kit.clock import Clock, SystemClock
from easel_kit.db import Pool, open_pool
from easel_kit.lifecycle import Supervisor
from easel_kit.log import get_logger
from easel_kit.redis import open_redis
from easel_kit.rpc.server import RpcServer, build_server
from easel_kit.telemetry import serve_metrics
from scheduler import loop
from scheduler.domain.backoff import Backoff
from scheduler.domain.parking import Parking
from scheduler.observe import LoggingObserver
from scheduler.ports import Observer, Publisher, Spawn
from scheduler.rpc.events import EventServicer
from scheduler.rpc.jobs import JobServicer
from scheduler.rpc.leases import LeaseServicer
from scheduler.rpc.privacy import PrivacyServicer
from scheduler.rpc.registration import SERVICES, register
from scheduler.service.assign import Assigner
from scheduler.service.dispatch import Dispatch
from scheduler.service.feed import Feed
from scheduler.service.fitness import Fitness
from scheduler.service.fresh import Fresh
from scheduler.service.hearing import Hearing
from scheduler.service.jobs import Jobs
from scheduler.service.keeper import Keeper
from scheduler.service.load import Meter, Overview
from scheduler.service.operations import Operations
from scheduler.service.plans import Plans
from scheduler.service.privacy import Privacy
from scheduler.service.progress import ProgressPump
from scheduler.service.rebuild import Rebuilder
from scheduler.service.reconcile import Reconciler
from scheduler.service.recorder import Recorder
from scheduler.service.reports import Reports
from scheduler.service.settle import Settler
from scheduler.service.submits import Submits
from scheduler.service.upkeep import Caretaker
from scheduler.service.watch import Watches
from scheduler.service.workers import Workers
from scheduler.settings import Settings
from scheduler.storage.attempts import PostgresAttempts
from scheduler.storage.bell import PostgresBell
from scheduler.storage.epoch import RedisEpoch
from scheduler.storage.events import PostgresFeed
from scheduler.storage.jobs import PostgresJobs
from scheduler.storage.leases import RedisLeases
from scheduler.storage.load import PostgresLoad
from scheduler.storage.locks import PostgresLocks
from scheduler.storage.own_line import PostgresOwnLine
from scheduler.storage.plans import PostgresPlans
from scheduler.storage.privacy import PostgresPrivacy
from scheduler.storage.queue import RedisLine
from scheduler.storage.retention import PostgresHistory
from scheduler.storage.scripts import Scripts
from scheduler.storage.signals import RedisSignals

SCHEMA = "scheduler"
_OPEN_WAIT_S = 1.0
_RECORD_LINGER_S = 0.02
_MIGRATIONS = Path(__file__).with_name("migrations")

_log = get_logger(__name__)


def migrate(settings: Settings) -> None:
    """Brings the schema to what this code needs."""
    from easel_kit import migrations  # noqa: PLC0415 (serving does without Alembic)

    migrations.upgrade(_MIGRATIONS, settings.database_url.get_secret_value(), SCHEMA)


@dataclass(frozen=True, slots=True)
class _Stores:
    """Adapters, opened."""

    jobs: PostgresJobs
    own_line: PostgresOwnLine
    plans: PostgresPlans
    history: PostgresHistory
    privacy: PostgresPrivacy
    attempts: PostgresAttempts
    feed: PostgresFeed
    load: PostgresLoad
    bell: PostgresBell
    line: RedisLine
    leases: RedisLeases
    signals: RedisSignals
    epoch: RedisEpoch
    locks: PostgresLocks
    doubted: asyncio.Event
    """Set when the queue may have to be rebuilt."""


@dataclass(frozen=True, slots=True)
class _Uses:
    """Use cases, built."""

    submits: Submits
    jobs: Jobs
    operations: Operations
    overview: Overview
    plans: Plans
    privacy: Privacy
    watches: Watches
    workers: Workers
    feed: Feed
    caretaker: Caretaker
    meter: Meter
    rebuilder: Rebuilder
    reconciler: Reconciler
    reconcile_soon: asyncio.Event
    recorder: Recorder
    pump: ProgressPump
    hearing: Hearing

    def shut(self) -> None:
        """Ends all streams well: their clients come again, here or to another replica."""
        self.workers.shut()
        self.watches.shut()
        self.feed.shut()


async def run(
    settings: Settings,
    stop: asyncio.Event,
    *,
    observer: Observer | None = None,
    clock: Clock | None = None,
    on_ready: Callable[[int], None] | None = None,
    on_submits: Callable[[Submits], None] | None = None,
) -> None:
    """Serves until `stop` is set, then ends all streams and returns.

    Args:
        settings: checked.
        stop: set by a signal, or by a background task that failed.
        observer: takes the place of logs and metrics.
        clock: takes the place of the machine's.
        on_ready: called with the port once it serves.
        on_submits: called with that use case once it serves, for callers in this process.

    Raises:
        DependencyDown: the database does not answer at the start.
    """
    observer = observer or LoggingObserver(settings.lane)
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        stack.callback(serve_metrics(settings.metrics_listen))
        stores = await _open(settings, stack)
        supervisor = await stack.enter_async_context(Supervisor(stop))

        def spawn(name: str, work: Coroutine[Any, Any, None]) -> None:
            supervisor.start(name, _guarded(name, work), may_end=True)

        uses = _build(settings, stores, observer, clock, spawn)
        for name, work in _side_tasks(settings, stores, uses, observer).items():
            supervisor.start(name, work)
        server = _register(settings, uses, spawn)
        await uses.rebuilder.opened(within_s=_OPEN_WAIT_S)  # callers are served without it too
        async with server.serving(settings.listen, SERVICES, grace_s=settings.grace_s):
            _log.info("service.ready", port=server.port)
            if on_ready is not None:
                on_ready(server.port)
            if on_submits is not None:
                on_submits(uses.submits)
            await stop.wait()
            uses.shut()


async def _guarded(name: str, work: Coroutine[Any, Any, None]) -> None:
    # work for one worker: its stream ends with it (Session.work), the process does not
    try:
        await work
    except Exception:  # noqa: BLE001 (the supervisor of one stream: logs)
        _log.exception("task.broken", task=name)


async def _open(settings: Settings, stack: AsyncExitStack) -> _Stores:
    url = settings.database_url.get_secret_value()
    pool: Pool = await stack.enter_async_context(
        open_pool(
            url, schema=SCHEMA, name="easel-scheduler", max_size=settings.database_connections
        )
    )
    redis = await stack.enter_async_context(
        open_redis(settings.redis_url.get_secret_value(), name="easel-scheduler")
    )
    bell = PostgresBell(pool, url)
    doubted = asyncio.Event()
    scripts = Scripts(redis, settings.lane, on_closed=doubted.set)
    return _Stores(
        jobs=PostgresJobs(pool, lane=settings.lane, ring=bell.ring),
        own_line=PostgresOwnLine(pool, ring=bell.ring),
        plans=PostgresPlans(pool, lane=settings.lane),
        history=PostgresHistory(pool),
        privacy=PostgresPrivacy(pool),
        attempts=PostgresAttempts(
            pool,
            lane=settings.lane,
            max_attempts=settings.max_attempts,
            retry=Backoff(settings.retry_base_s, settings.retry_cap_s),
            ring=bell.ring,
        ),
        feed=PostgresFeed(pool),
        load=PostgresLoad(pool, lane=settings.lane),
        bell=bell,
        line=RedisLine(redis, scripts, lease_ttl_s=settings.lease_ttl_s),
        leases=RedisLeases(
            redis,
            scripts,
            lease_ttl_s=settings.lease_ttl_s,
            parking=Parking(settings.park_max_s, settings.park_max_times),
        ),
        signals=RedisSignals(redis, scripts.prefix),
        epoch=RedisEpoch(redis, scripts, lease_ttl_s=settings.lease_ttl_s),
        locks=PostgresLocks(pool, lane=settings.lane),
        doubted=doubted,
    )


def _build(
    settings: Settings, stores: _Stores, observer: Observer, clock: Clock, spawn: Spawn
) -> _Uses:
    settler = Settler(stores.attempts, stores.line, observer)
    recorder = Recorder(stores.attempts, stores.line, observer, linger_s=_RECORD_LINGER_S)
    fresh = Fresh()
    pump = ProgressPump(stores.leases, observer, max_preview_bytes=settings.max_preview_bytes)
    dispatch = Dispatch()
    keeper = Keeper(stores.attempts, stores.leases)
    jobs = Jobs(stores.jobs, stores.line, stores.leases, observer)
    workers = Workers(
        attempts=stores.attempts,
        line=stores.line,
        leases=stores.leases,
        settler=settler,
        keeper=keeper,
        assigner=Assigner(
            attempts=stores.attempts,
            fresh=fresh,
            line=stores.line,
            leases=stores.leases,
            keeper=keeper,
            recorder=recorder,
            dispatch=dispatch,
            observer=observer,
        ),
        reports=Reports(
            stores.attempts,
            settler,
            recorder,
            Fitness(
                stores.leases,
                observer,
                spawn,
                pause=Backoff(settings.unfit_base_s, settings.unfit_cap_s),
            ),
            observer,
        ),
        pump=pump,
        dispatch=dispatch,
        observer=observer,
        clock=clock,
        spawn=spawn,
        heartbeat_s=settings.heartbeat_s,
        lease_ttl_s=settings.lease_ttl_s,
        reconnect_grace_s=settings.reconnect_grace_s,
    )
    watches = Watches(
        jobs,
        stores.line,
        stores.signals,
        observer,
        recheck_s=settings.watch_recheck_s,
        max_watchers=settings.max_watchers,
    )
    reconcile_soon = asyncio.Event()
    rebuilder = Rebuilder(
        attempts=stores.attempts,
        line=stores.line,
        epoch=stores.epoch,
        locks=stores.locks,
        observer=observer,
        clock=clock,
        doubted=stores.doubted,
        on_open=reconcile_soon.set,
        unwritten_s=10 * _RECORD_LINGER_S,
    )
    return _Uses(
        submits=Submits(
            stores.jobs,
            stores.line,
            fresh,
            observer,
            lane=settings.lane,
            max_jobs_per_submit=settings.max_jobs_per_submit,
        ),
        jobs=jobs,
        operations=Operations(stores.own_line, jobs, stores.line, fresh, observer),
        plans=Plans(stores.plans, stores.line, observer, clock, lane=settings.lane),
        privacy=Privacy(stores.privacy, stores.attempts, stores.line),
        overview=Overview(stores.load, stores.leases, observer, clock),
        watches=watches,
        workers=workers,
        feed=Feed(stores.feed, stores.bell, recheck_s=settings.feed_recheck_s),
        caretaker=Caretaker(
            attempts=stores.attempts,
            line=stores.line,
            upkeep=stores.line,
            settler=settler,
            observer=observer,
            clock=clock,
            lease_ttl_s=settings.lease_ttl_s,
        ),
        meter=Meter(stores.load, stores.leases, stores.line, observer, _publisher(settings)),
        rebuilder=rebuilder,
        reconciler=Reconciler(
            attempts=stores.attempts,
            line=stores.line,
            upkeep=stores.line,
            locks=stores.locks,
            observer=observer,
        ),
        reconcile_soon=reconcile_soon,
        recorder=recorder,
        pump=pump,
        hearing=Hearing(dispatch, workers, watches, rebuilder),
    )


def _publisher(settings: Settings) -> Publisher | None:
    if not settings.cloudwatch_namespace:
        return None
    from scheduler.clients.cloudwatch import CloudWatch  # noqa: PLC0415 (boto3 is slow to import)

    return CloudWatch(
        settings.cloudwatch_namespace,
        lane=settings.lane,
        region=settings.cloudwatch_region,
        endpoint=settings.cloudwatch_endpoint_url,
    )


def _side_tasks(
    settings: Settings, stores: _Stores, uses: _Uses, observer: Observer
) -> dict[str, Coroutine[Any, Any, None]]:
    return {
        "signals": stores.signals.run(uses.hearing),
        "bell": stores.bell.tell(),
        "feed": stores.bell.listen(),
        "recorder": uses.recorder.run(),
        "progress": uses.pump.run(),
        "leases": loop.watch_leases(uses.caretaker, observer, every_s=settings.expire_every_s),
        "rebuild": uses.rebuilder.run(),
        "reconcile": loop.reconcile(
            uses.reconciler, observer, every_s=settings.reconcile_every_s, soon=uses.reconcile_soon
        ),
        "positions": loop.every(
            settings.position_every_s, "positions", uses.watches.refresh_positions, observer
        ),
        "measure": loop.measure(uses.meter, observer, every_s=settings.measure_every_s),
        "changes": loop.every(settings.reconcile_every_s, "changes", uses.plans.catch_up, observer),
        "prune": loop.prune(
            stores.feed,
            stores.history,
            observer,
            events_kept_s=settings.events_kept_s,
            jobs_kept_s=settings.jobs_kept_s,
        ),
    }


def _register(settings: Settings, uses: _Uses, spawn: Spawn) -> RpcServer:
    server = build_server()
    register(
        server.grpc,
        JobServicer(
            submits=uses.submits,
            jobs=uses.jobs,
            operations=uses.operations,
            plans=uses.plans,
            overview=uses.overview,
            watches=uses.watches,
        ),
        LeaseServicer(uses.workers, spawn, lane=settings.lane),
        EventServicer(uses.feed),
        PrivacyServicer(uses.privacy),
    )
    return server
