"""The signals that the lane is scaled by."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from easel_kit.errors import DependencyDown
from easel_kit.ids import ModelKey, WorkerId
from scheduler.domain.estimate import Pace
from scheduler.domain.load import Load, ModelLoad, TierLoad, readings
from scheduler.domain.worker import Worker, WorkerStatus
from scheduler.observe import LoggingObserver
from scheduler.service.load import Meter
from tests.fakes.scheduler import RecordingObserver, RecordingPublisher
from tests.fakes.scheduler_house import House, model

M, Z = ModelKey("m"), ModelKey("z")
LOAD = Load(
    tiers=(TierLoad(priority=10, weight=4, waiting=2, running=1, waiting_users=1),),
    models=(
        ModelLoad(M, waiting=3, running=2, waiting_cost_ms=60_000, oldest_waiting_s=9),
        ModelLoad(Z, waiting=1, running=0, waiting_cost_ms=20_000, oldest_waiting_s=40),
    ),
)


def worker(name: str, slots: int, *keys: str, draining: bool = False) -> WorkerStatus:
    models = tuple(model(key) for key in keys)
    return WorkerStatus(
        Worker(WorkerId(name), "ses", "", "cpu", slots, models, draining=draining), 0
    )


def test_backlog_is_waiting_work_over_workers_times_their_measured_rate() -> None:
    workers = [worker("a", 2, "m", "z"), worker("b", 2, "m"), worker("c", 8, "m", draining=True)]
    lane, m, z = readings(LOAD, workers, Pace(ms_per_cost=0.5))
    assert (lane.waiting, lane.running, lane.workers, lane.slots) == (4, 2, 2, 4)
    assert (lane.waiting_s, lane.backlog_s, lane.busy_share) == (40.0, 10.0, 0.5)
    assert lane.oldest_waiting_s == 40
    assert (m.model_key, m.workers, m.slots, m.backlog_s) == (M, 2, 4, 7.5)
    assert (z.model_key, z.workers, z.slots, z.backlog_s) == (Z, 1, 2, 5.0)


def test_without_workers_the_backlog_counts_as_for_one_slot() -> None:
    lane, m, z = readings(LOAD, [], Pace())
    assert (lane.backlog_s, m.backlog_s, z.backlog_s) == (80.0, 60.0, 20.0)
    assert (lane.workers, lane.busy_share) == (0, 0.0)


def test_an_idle_model_that_a_worker_has_is_shown_at_zero() -> None:
    broken = replace(model("broken"), unavailable_reason="no room")
    status = worker("a", 1, "m")
    status = replace(status, worker=replace(status.worker, models=(*status.worker.models, broken)))
    lane, m = readings(Load(), [status], Pace())
    assert (lane.waiting, lane.backlog_s, m.model_key, m.workers) == (0, 0.0, M, 1)


def test_gauges_show_what_is_there_and_nothing_that_was() -> None:
    observer = LoggingObserver("gauges")

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(f"easel_scheduler_{name}", {"lane": "gauges", **labels})

    observer.measured(LOAD, readings(LOAD, [worker("a", 2, "m")], Pace()))
    assert value("backlog_seconds_per_worker") == 40
    assert value("busy_share") == 1
    assert value("model_waiting_jobs", model="z") == 1
    assert value("tier_waiting_jobs", tier="10") == 2
    observer.measured(Load(), readings(Load(), [worker("a", 2, "m")], Pace()))
    assert value("backlog_seconds_per_worker") == 0
    assert value("model_waiting_jobs", model="m") == 0
    assert value("model_waiting_jobs", model="z") is None
    assert value("tier_waiting_jobs", tier="10") is None


async def test_the_line_is_measured_while_the_queue_is_away() -> None:
    house = House()
    seen, publisher = RecordingObserver(), RecordingPublisher()
    meter = Meter(house.store, house.queue, house.queue, seen, publisher)
    await house.submit()
    house.queue.away = True
    await meter.measure()
    assert seen.names() == ["trouble measure", "measured"]
    assert (publisher.told[0][0].waiting, publisher.told[0][0].workers) == (1, 0)


async def test_a_publisher_that_is_away_is_trouble_of_the_loop() -> None:
    house = House()
    seen, publisher = RecordingObserver(), RecordingPublisher()
    publisher.away = True
    meter = Meter(house.store, house.queue, house.queue, seen, publisher)
    with pytest.raises(DependencyDown):
        await meter.measure()
    assert seen.names() == ["measured"]
    await Meter(house.store, house.queue, house.queue, seen, None).measure()
