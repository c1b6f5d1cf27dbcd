"""The composition root: settings in, a working worker out. Reads top to bottom."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import version

from easel_kit.clock import SystemClock
from easel_kit.errors import InvalidInput, InvalidState, NotFound
from easel_kit.ids import ModelKey, WorkerId, new_id
from easel_kit.lifecycle import Supervisor
from easel_kit.log import get_logger
from easel_kit.objects import ObjectStore, open_object_store
from easel_kit.rpc.channel import open_channel
from easel_kit.rpc.server import build_server
from easel_kit.telemetry import serve_metrics
from gpu_worker.clients.bucket import S3Origin
from gpu_worker.clients.decoding import InputBounds
from gpu_worker.clients.ecs import EcsAgent
from gpu_worker.clients.gallery import ObjectGallery, Patience
from gpu_worker.clients.hub import HubOrigin
from gpu_worker.clients.scheduler import GrpcScheduler
from gpu_worker.domain.generation import Limits
from gpu_worker.domain.work import Profile
from gpu_worker.engine.face import AsyncEngine, EngineOptions, open_engine
from gpu_worker.engine.switches import Switches
from gpu_worker.rpc.servicer import SERVICE_NAME, register
from gpu_worker.service.bench import Bench
from gpu_worker.service.loop import Worker
from gpu_worker.service.outbox import Outbox
from gpu_worker.service.protection import Pace, ScaleInGuard
from gpu_worker.settings import Settings
from gpu_worker.storage.disk_cache import DiskCache
from gpu_worker.storage.model_store import ModelStore

_log = get_logger(__name__)

_LAST_CALLS_S = 1.0
"""Seconds that calls to its own face may still take once all work has ended."""


async def run(settings: Settings, stop: asyncio.Event, *, store: ObjectStore | None = None) -> None:
    """Serves until `stop` is set or somebody says drain, then leaves within `grace_s`.

    Args:
        settings: of this worker.
        stop: set to make it leave; it sets this itself when told to drain.
        store: instead of the one in the settings.
    """
    async with AsyncExitStack() as stack:
        stack.callback(serve_metrics(settings.metrics_listen))
        clock = SystemClock()
        if store is None:
            store = await stack.enter_async_context(open_object_store(settings.objects, clock))
        files = open_model_files(settings, stop.is_set)
        engine = await stack.enter_async_context(
            open_engine(_engine_options(settings), files=files)
        )
        channel = await stack.enter_async_context(open_channel(settings.scheduler_address))
        tasks = await stack.enter_async_context(Supervisor(stop))
        tasks.start("engine", engine.watch())
        tasks.start("catalogue", engine.tend())
        if not await _warm_up(engine, settings.preload_keys, stop):
            return

        outbox = Outbox()
        gallery = ObjectGallery(store, Patience(), _input_bounds(settings))
        bench = Bench(
            engine,
            gallery,
            outbox,
            tasks,
            clock,
            slots=settings.slots,
            limits=_limits(settings),
        )
        worker = Worker(
            _profile(settings),
            engine=engine,
            scheduler=GrpcScheduler(channel),
            gallery=gallery,
            bench=bench,
            outbox=outbox,
            leave=stop,
        )
        server = build_server()
        register(worker, server.grpc)
        await stack.enter_async_context(
            server.serving(settings.listen, [SERVICE_NAME], grace_s=_LAST_CALLS_S)
        )
        address = settings.advertise or _reachable(settings.listen, server.port)
        if settings.ecs_agent_uri:
            guard = ScaleInGuard(EcsAgent(settings.ecs_agent_uri), bench, Pace())
            tasks.start("protection", guard.run())
        tasks.start("work", worker.run(address), may_end=True)
        _log.info("service.ready", port=server.port, device=engine.status().device)

        await stop.wait()
        await server.set_health(serving=False)
        await worker.drain(settings.grace_s)


async def _warm_up(engine: AsyncEngine, keys: tuple[str, ...], stop: asyncio.Event) -> bool:
    """Loads the models of the settings; false when the process shall stop instead."""

    async def load() -> None:
        for key in keys:
            try:
                await engine.warm_up(ModelKey(key))
            except (NotFound, InvalidState) as error:
                _log.error("model.absent", model=key, reason=str(error))

    loading = asyncio.create_task(load(), name="warm-up")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
        return not stop.is_set()
    finally:
        for task in (loading, stopping):
            task.cancel()
        await asyncio.gather(loading, stopping, return_exceptions=True)


def open_model_files(settings: Settings, stopped: Callable[[], bool]) -> ModelStore:
    """Where models come from; fetches end once `stopped` answers true.

    Raises:
        InvalidInput: the cache's folder cannot be written, or the token's file not be read.
    """
    cache = None
    if settings.model_disk_cache_dir is not None:
        try:
            cache = DiskCache(
                settings.model_disk_cache_dir, settings.model_disk_cache_mb * 2**20, stopped
            )
        except OSError as error:
            raise InvalidInput("model_disk_cache_dir", error.strerror or "unusable") from error
    token = ""
    if settings.model_hub_token_file is not None:
        try:
            token = settings.model_hub_token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InvalidInput("model_hub_token_file", error.strerror or "unusable") from error
    return ModelStore(
        cache,
        s3=S3Origin(region=settings.model_s3_region, endpoint=settings.model_s3_endpoint_url),
        hub=HubOrigin(endpoint=settings.model_hub_endpoint, token=token),
        stopped=stopped,
    )


def _profile(settings: Settings) -> Profile:
    return Profile(
        worker_id=WorkerId(settings.id or new_id("wrk")),
        lane=settings.lane,
        slots=settings.slots,
        version=version("easel-gpu-worker"),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_pixels=settings.max_pixels,
        max_images=settings.max_images,
        job_time_limit_s=settings.job_time_limit_s,
    )


def _input_bounds(settings: Settings) -> InputBounds:
    return InputBounds(
        max_bytes=settings.max_input_mb * 2**20, max_pixels=settings.max_input_pixels
    )


def _reachable(listen: str, port: int) -> str:
    """Where others reach what listens there: a wildcard address is no place to dial."""
    host = listen.rpartition(":")[0]
    if host in {"0.0.0.0", "[::]", "::"}:  # noqa: S104 (compared, not listened on)
        host = socket.gethostname()
    return f"{host}:{port}"


def _engine_options(settings: Settings) -> EngineOptions:
    return EngineOptions(
        models_dir=settings.models_dir,
        catalogue_file=settings.catalogue_file,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        cache_bytes=settings.model_cache_mb * 2**20,
        reserve_bytes=settings.model_cache_reserve_mb * 2**20,
        embedding_bytes=settings.embedding_cache_mb * 2**20,
        max_rows=settings.max_rows,
        preview_interval_s=settings.preview_interval_ms / 1000,
        switches=Switches(
            channels_last=settings.channels_last,
            compile_blocks=settings.compile_blocks,
            attention_backend=settings.attention_backend,
            fp8_storage=settings.fp8_storage,
            int8_weights=settings.int8_weights,
            group_offload=settings.group_offload,
        ),
    )
