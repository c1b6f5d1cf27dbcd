"""Weighted prompts and skipped layers, beside what stock diffusers makes of its embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gpu_worker.domain.drawing import Failed
from gpu_worker.engine.face import AsyncEngine
from tests.fakes.gpu_worker import generation
from tests.fakes.gpu_worker_models import Recorder, Stock, draw, drawn
from tests.fakes.gpu_worker_stock import Result, close, drawn_by_stock, drawn_by_us, same

PLAIN = generation(prompt="a red circle on a white background", steps=4)


@pytest.fixture(scope="module", autouse=True)
def _layer_norm_where_stock_looks(stock: Stock) -> Iterator[None]:
    # transformers 5 has flattened the encoder; diffusers 0.42 looks for the norm where it was
    encoder = stock.text_encoder
    if not hasattr(encoder, "text_model"):
        object.__setattr__(encoder, "text_model", encoder)
    yield
    encoder.__dict__.pop("text_model", None)


async def test_a_weight_moves_its_tokens_only(
    engine: AsyncEngine, recorder: Recorder, stock: Stock
) -> None:
    asked = generation(prompt="a (red:1.4) circle on a (white background:0.6)", steps=4)
    ours = await drawn_by_us(engine, recorder, asked)
    # begin, a, red, circle, on, a, white, background, end
    weights = [1, 1, 1.4, 1, 1, 1, 0.6, 0.6]
    assert not close(ours, drawn_by_stock(stock, PLAIN))
    assert same(ours, drawn_weighted(stock, weights))
    assert not same(ours, drawn_weighted(stock, [1, *weights]))


def drawn_weighted(stock: Stock, weights: list[float]) -> Result:
    with torch.no_grad():
        positive, negative = stock.encode_prompt(
            PLAIN.prompt, "cpu", 1, do_classifier_free_guidance=True
        )
        empty, _ = stock.encode_prompt("", "cpu", 1, do_classifier_free_guidance=True)
    for index, weight in enumerate(weights):
        if weight != 1:
            there = empty[:, index]
            positive[:, index] = there + weight * (positive[:, index] - there)
    return drawn_by_stock(
        stock,
        PLAIN,
        prompt=None,
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        negative_prompt=None,
    )


async def test_weight_one_and_escapes_change_nothing(engine: AsyncEngine) -> None:
    plain = await drawn(engine, PLAIN)
    written = generation(prompt="a (red:1.0) circle on a white background", steps=4)
    assert (await drawn(engine, written)).pictures == plain.pictures


async def test_a_long_weighted_prompt_is_cut_with_a_warning(engine: AsyncEngine) -> None:
    outcome = await drawn(engine, generation(prompt="(red:1.2) " * 23, steps=1))
    assert outcome.warnings == ("prompt cut after 22 tokens",)


async def test_a_weight_out_of_bounds_is_told(engine: AsyncEngine) -> None:
    outcome = await drawn(engine, generation(prompt="a (red:7) circle", steps=1))
    assert "weight 7 is not from 0 to 2: left as text" in outcome.warnings


@pytest.mark.parametrize("skip", [1, 2])
async def test_skipped_layers_are_bitwise_stock(
    engine: AsyncEngine, recorder: Recorder, stock: Stock, skip: int
) -> None:
    asked = generation(clip_skip=skip, steps=3, negative_prompt="a blue square")
    ours = await drawn_by_us(engine, recorder, asked)
    assert same(ours, drawn_by_stock(stock, asked))
    assert not close(ours, drawn_by_stock(stock, generation(steps=3)))


async def test_more_layers_than_there_are_cannot_be_skipped(engine: AsyncEngine) -> None:
    outcome = await draw(engine, generation(clip_skip=3))
    assert isinstance(outcome, Failed)
    assert outcome.message == "clip_skip must be below 3 for this model"
