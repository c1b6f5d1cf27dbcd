"""The engine's benchmark on the smallest model, with next to no requests."""

import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import httpx
import pytest
from PIL import Image

from bench.engine.campaign import STOCK, Campaign
from bench.engine.costs import ROWS, costs
from bench.engine.drawing import Artist, opened
from bench.engine.hosts.easel_http import application
from bench.engine.models import prepare
from bench.engine.pictures import read_answer
from bench.engine.plan import MIXED, TINY, UNIFORM, Plan, Size
from bench.engine.replay import ask_all, judged, play
from bench.engine.stock import Stock
from bench.engine.trace import Request, burst, requests
from bench.engine.trials import alone, cancels, preemptions
from gpu_worker.ports import Engine

pytestmark = [
    # processes that import torch, whatever else the machine does
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

_PLAN = Plan(
    rounds=1,
    sizes={MIXED: Size(1, 2), UNIFORM: Size(1, 2)},
    calibration=2,
    pairs=2,
    preemptions=1,
    cancels=1,
    busy=2,
    cost_repeats=1,
    patience_s=60,
)


def _image(found: object) -> Image.Image:
    return cast("Image.Image", found)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "models"
    prepare(folder, [TINY])
    return folder


@pytest.fixture(scope="module")
def stock(models_dir: Path) -> Stock:
    return Stock(models_dir, [TINY])


async def test_stock_static_batching_and_ours_draw_the_same_pictures(
    models_dir: Path, stock: Stock
) -> None:
    arrivals = burst(requests(MIXED, TINY, 4, random.Random(1)) * 2)
    one_by_one = play(arrivals, stock.draw, most=1, window_s=0)
    batched = play(arrivals, stock.draw, most=8, window_s=0)
    async with opened(models_dir, [TINY], slots=3) as artist:
        ours = await ask_all(arrivals, artist.picture)
    for replies in (one_by_one, batched, ours):
        assert {one.fault for one in judged(arrivals, replies, _image)} == {""}
    for others in (batched, ours):
        for one, other in zip(one_by_one, others, strict=True):
            assert _furthest(_image(one.answer), _image(other.answer)) <= 1


def _furthest(one: Image.Image, other: Image.Image) -> int:
    return max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


async def test_our_engine_is_tried_alone_and_cancelled(models_dir: Path, stock: Stock) -> None:
    async with opened(models_dir, [TINY], slots=3) as artist:
        pairs = await alone(artist, stock, TINY, 2)
        found = await cancels(artist, TINY, busy=2, count=3)
    assert len(pairs) == 2
    assert all(pair.ours_s > 0 and pair.stock_s > 0 for pair in pairs)
    assert [one.billed for one in found] == [one.shown for one in found]
    assert all(one.billed > 0 for one in found)


class _Parking:
    """The engine, noting who is parked and resumed."""

    def __init__(self, engine: Engine, says: Callable[[str], None]) -> None:
        self._engine = engine
        self._says = says
        self.draw = engine.draw
        self.cancel = engine.cancel

    async def park(self, attempt_id: str) -> int | None:
        self._says(f"park {attempt_id}")
        return 1

    async def resume(self, attempt_id: str) -> bool:
        self._says(f"resume {attempt_id}")
        return True


async def test_who_is_parked_for_a_paid_job_is_resumed(models_dir: Path) -> None:
    said: list[str] = []
    async with opened(models_dir, [TINY], slots=3) as artist:
        noted = Artist(cast("Engine", _Parking(artist.engine, said.append)), slots=3)
        found = await preemptions(noted, TINY, busy=2, count=2)
    assert len(found) == 2
    assert all(one.delay_s > 0 and one.step_s > 0 for one in found)
    assert [line.split()[0] for line in said] == ["park", "resume"] * 2
    assert [line.split()[1] for line in said[::2]] == [line.split()[1] for line in said[1::2]]


def test_every_part_of_a_picture_has_a_cost(stock: Stock) -> None:
    found = costs(stock, TINY, 1)
    assert {f"forward {rows}" for rows in ROWS} < set(found)
    assert {"step ddim", "decode picture", "encode prompt", "encode PNG"} < set(found)


async def test_our_server_answers_with_pictures(models_dir: Path) -> None:
    arrivals = burst(requests(UNIFORM, TINY, 2, random.Random(1)))
    async with (
        opened(models_dir, [TINY], slots=3) as artist,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(application(artist)), base_url="http://easel"
        ) as client,
    ):

        async def ask(asked: Request) -> object:
            answer = await client.post("/predict", json=asdict(asked))
            return answer.raise_for_status().json()

        replies = await ask_all(arrivals, ask)
        assert (await client.get("/health")).is_success
    assert {one.fault for one in judged(arrivals, replies, read_answer)} == {""}


async def test_a_whole_run_loses_nothing_and_leaves_the_cores_as_they_were(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    campaign = Campaign(tmp_path, _PLAN, [TINY], lambda _text: None)
    await campaign.run([STOCK])
    found = campaign.results
    assert os.sched_getaffinity(0) == cores
    assert (found.lost, found.trouble) == ([], [])
    assert set(found.turns) == {(TINY, MIXED, STOCK), (TINY, UNIFORM, STOCK)}
    assert all(turn.per_cpu_s > 0 for turns in found.turns.values() for turn in turns)
    assert found.costs[TINY]["forward 1"] > 0
