"""A worker's life in short: memory that runs out, cancels, adapters, more models than fit.

`--soak-jobs 1000` is the long form; `-s` prints its figures.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import psutil
import pytest
import torch

from easel_kit.ids import AttemptId, ModelKey, new_attempt_id
from gpu_worker.domain.drawing import Drawn, Failed, Outcome, StepProgress, Stopped
from gpu_worker.domain.generation import Generation, Lora
from gpu_worker.engine import face
from gpu_worker.engine.cache import ModelCache
from gpu_worker.engine.face import AsyncEngine
from gpu_worker.engine.model import Part, Rows
from tests.fakes.gpu_worker import generation
from tests.fakes.gpu_worker_models import (
    Stock,
    Wrapped,
    copy_model,
    drawn,
    faulty,
    levels_apart,
    running_engine,
)
from tests.fakes.gpu_worker_weights import lora_file

KEYS = ("one", "two", "three")
ADAPTERS = ("ink", "oil")
CACHE_BYTES = 36_000_000
"""Room for two of the three models."""

AT_ONCE = 12
MOST_GROWTH_BYTES = 32 * 2**20
"""Two models' worth: how the allocator lies fragmented differs as much."""


def specimens() -> list[Generation]:
    """The jobs that are asked for again and again, in all kinds of company."""
    rng = random.Random(7)
    samplers = ("ddim", "euler", "euler_a", "dpmpp_2m", "unipc")
    return [
        generation(
            model_key=ModelKey(KEYS[index % 3]),
            prompt=("a red circle on a white background", "two blue stars on a black background")[
                index % 2
            ],
            sampler=samplers[index % 5],
            steps=rng.randint(2, 7),
            guidance=(1.0, 2.5, 4.0)[index % 3],
            image_count=1 + index % 2,
            seed=100 * index,
            loras=(Lora(ModelKey(ADAPTERS[index % 2]), 0.8),) if index % 4 == 3 else (),
        )
        for index in range(12)
    ]


@dataclass(slots=True)
class Planted:
    """Memory that runs out now and then, more often the more rows there are."""

    rng: random.Random = field(default_factory=lambda: random.Random(11))
    times: int = 0

    def __call__(self, model: Wrapped, rows: Rows) -> torch.Tensor:
        count = rows.samples.shape[0]
        if count > 2 and self.rng.random() < count / 200:
            self.times += 1
            raise torch.OutOfMemoryError("planted")
        return model.model.denoise(rows)


@dataclass(slots=True)
class Census:
    """What became of all jobs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    ended: Counter[AttemptId] = field(default_factory=Counter)
    changed: list[Generation] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    most_bytes: int = 0
    loads: int = 0


async def live(
    engine: AsyncEngine, count: int, expected: dict[Generation, Drawn], census: Census
) -> None:
    """Runs `count` jobs, some at a time, a tenth of them cancelled."""
    rng = random.Random(13)
    places = asyncio.Semaphore(AT_ONCE)
    kinds = list(expected)

    async def one(number: int) -> None:
        async with places:
            asked = kinds[number % len(kinds)]
            attempt_id = new_attempt_id()
            steps = 0

            def progressed(progress: StepProgress) -> None:
                nonlocal steps
                steps = progress.step
                if number % 10 == 9 and steps >= 1:
                    engine.cancel(attempt_id)

            outcome = await engine.draw(attempt_id, asked, {}, progressed)
            if number % 7 == 0:
                await engine.park(attempt_id)  # it is gone: nothing happens
            judge(asked, outcome)
        if number % 10 == 0:
            gc.collect()
            census.resident.append(psutil.Process().memory_info().rss)

    def judge(asked: Generation, outcome: Outcome) -> None:
        census.outcomes[type(outcome).__name__] += 1
        if isinstance(outcome, Drawn):
            pairs = zip(outcome.pictures, expected[asked].pictures, strict=True)
            if any(levels_apart(ours.raster, alone.raster) > 1 for ours, alone in pairs):
                census.changed.append(asked)
        elif isinstance(outcome, Failed):
            census.outcomes[outcome.code] += 1
        else:
            assert isinstance(outcome, Stopped)

    order = list(range(count))
    rng.shuffle(order)
    await asyncio.gather(*(one(number) for number in order))


@pytest.fixture
def models_dir(tmp_path: Path, stock: Stock) -> Path:
    """Three models and two adapters."""
    for key in KEYS:
        copy_model(tmp_path, key, key=key)
    for seed, key in enumerate(ADAPTERS):
        lora_file(tmp_path, key, stock, seed)
    return tmp_path


@pytest.fixture
def census(monkeypatch: pytest.MonkeyPatch) -> Census:
    """Counts ends at the listeners and bytes in the cache, whatever the engine says of them."""
    found = Census()
    ended, arrived = face._Drawing.ended, ModelCache.arrived

    def count_end(drawing: face._Drawing, outcome: Outcome) -> None:
        # a name of its own on the listener: keeping listeners would keep their pictures
        found.ended[vars(drawing).setdefault("counted_as", new_attempt_id())] += 1
        ended(drawing, outcome)

    def count_bytes(cache: ModelCache[Part], key: ModelKey, part: Part) -> None:
        found.loads += 1
        arrived(cache, key, part)
        found.most_bytes = max(found.most_bytes, cache.used_bytes)

    monkeypatch.setattr(face._Drawing, "ended", count_end)
    monkeypatch.setattr(ModelCache, "arrived", count_bytes)
    return found


def grown(resident: Sequence[int]) -> int:
    """From the third quarter of a life to the fourth, by medians: models come and go meanwhile."""
    quarter = max(1, len(resident) // 4)
    before, after = resident[-2 * quarter : -quarter], resident[-quarter:]
    return max(0, int(median(after) - median(before)))


@pytest.mark.timeout(3600)
async def test_a_long_life_loses_nothing_and_grows_by_nothing(
    request: pytest.FixtureRequest, models_dir: Path, census: Census
) -> None:
    count = int(request.config.getoption("--soak-jobs"))
    with running_engine(models_dir=models_dir) as quiet:
        expected = {asked: await drawn(quiet, asked) for asked in specimens()}
    alone = sum(census.ended.values())
    census.loads = census.most_bytes = 0
    planted = Planted()
    with running_engine(
        faulty(planted), models_dir=models_dir, cache_bytes=CACHE_BYTES, preview_interval_s=1.0
    ) as engine:
        await live(engine, count, expected, census)
    growth = grown(census.resident)
    print(  # noqa: T201 (its figures are the point of the long form)
        f"\n{count} jobs: {dict(census.outcomes)}, {planted.times} times out of memory, "
        f"{census.loads} loads, {census.most_bytes:,} bytes of models at most, "
        f"{growth:,} bytes grown in the last quarter"
    )
    assert census.outcomes["Drawn"] + census.outcomes["Stopped"] == count
    assert census.outcomes["Stopped"] > 0
    assert sum(census.ended.values()) - alone == count
    assert set(census.ended.values()) == {1}
    assert not census.changed
    assert planted.times > 0
    assert census.loads > len(KEYS)
    assert census.most_bytes <= CACHE_BYTES
    assert growth < MOST_GROWTH_BYTES


async def test_a_changed_picture_would_be_seen(models_dir: Path, census: Census) -> None:
    def leaky(model: Wrapped, rows: Rows) -> torch.Tensor:
        prediction = model.model.denoise(rows)
        return prediction.roll(2, dims=0) if len(prediction) > 2 else prediction

    asked = [replace(one, image_count=2) for one in specimens()[:2]]
    with running_engine(models_dir=models_dir) as quiet:
        expected = {one: await drawn(quiet, one) for one in asked}
    with running_engine(faulty(leaky), models_dir=models_dir) as engine:
        await live(engine, 4, expected, census)
    assert census.changed
