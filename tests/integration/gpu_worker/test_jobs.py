"""Jobs in the engine: progress, looks, stopping, and trouble that stays where it arose."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from easel_kit.ids import new_attempt_id
from gpu_worker.domain.drawing import (
    Drawn,
    Failed,
    FailureKind,
    Raster,
    StepProgress,
    Stopped,
)
from gpu_worker.engine.face import AsyncEngine, EngineOptions, open_engine
from gpu_worker.engine.model import Rows
from tests.fakes.gpu_worker import SHAPES, generation
from tests.fakes.gpu_worker_models import (
    MODELS_DIR,
    Denoise,
    Gate,
    Wrapped,
    close,
    draw,
    drawn,
    faulty,
    running_engine,
    wrapping,
)

LONG = generation(steps=100)
UNGUIDED = generation(guidance=1.0)


async def test_the_same_request_gives_the_same_pixels(engine: AsyncEngine) -> None:
    one, two = generation(sampler="euler_a"), generation(sampler="euler_a", image_count=2)
    assert await drawn(engine, one) == await drawn(engine, one)
    # two pictures are company for each other: how many rows share a forward is up to the policy
    assert close(await drawn(engine, two), await drawn(engine, two))


async def test_progress_counts_the_steps_of_all_pictures(engine: AsyncEngine) -> None:
    heard: list[StepProgress] = []
    outcome = await draw(engine, generation(steps=4, image_count=3), heard.append)
    assert isinstance(outcome, Drawn)
    assert outcome.steps_done == 12
    steps = [progress.step for progress in heard]
    assert steps == sorted(set(steps))
    assert heard[-1].step == 12
    assert {progress.steps for progress in heard} == {12}


async def test_progress_is_heard_while_it_draws() -> None:
    gate = Gate(after=2)
    with running_engine(faulty(gate)) as engine:
        heard: asyncio.Queue[StepProgress] = asyncio.Queue()
        drawing = asyncio.ensure_future(draw(engine, generation(steps=3), heard.put_nowait))
        assert (await asyncio.wait_for(heard.get(), 20)).step in {1, 2}
        assert not drawing.done()
        gate.open.set()
        assert isinstance(await drawing, Drawn)


async def test_the_last_look_resembles_the_picture(engine: AsyncEngine) -> None:
    looks: list[StepProgress] = []
    asked = generation(prompt="a blue square on a yellow background")
    outcome = await draw(engine, asked, looks.append)
    assert isinstance(outcome, Drawn)
    look = [progress.preview for progress in looks if progress.preview][-1]
    assert (look.width_px, look.height_px) == (16, 16)
    small = torch.frombuffer(bytearray(look.rgb), dtype=torch.uint8).view(16, 16, 3).float()
    full = torch.frombuffer(bytearray(outcome.pictures[0].raster.rgb), dtype=torch.uint8)
    cells = full.view(16, 4, 16, 4, 3).float().mean(dim=(1, 3))
    assert (small - cells).abs().mean() < 16


async def test_looks_keep_their_distance() -> None:
    with running_engine(preview_interval_s=3600) as engine:
        heard: list[StepProgress] = []
        await draw(engine, generation(), heard.append)
        assert sum(progress.preview is not None for progress in heard) == 1


async def test_a_long_prompt_is_cut_with_a_warning(engine: AsyncEngine) -> None:
    fits = await drawn(engine, generation(prompt="red " * 22, steps=1))
    cut = await drawn(engine, generation(prompt="red " * 23, negative_prompt="blue " * 23, steps=1))
    assert fits.warnings == ()
    assert cut.warnings == (
        "prompt cut after 22 tokens",
        "negative prompt cut after 22 tokens",
    )


# --- stopping ---------------------------------------------------------------------------------


async def test_a_cancel_stops_before_the_next_step() -> None:
    gate = Gate(after=3)
    with running_engine(faulty(gate)) as engine:
        attempt_id = new_attempt_id()
        drawing = asyncio.ensure_future(engine.draw(attempt_id, LONG, {}, lambda _: None))
        assert await asyncio.to_thread(gate.reached.wait, 20)  # inside the fourth step
        engine.cancel(attempt_id)
        gate.open.set()
        assert await drawing == Stopped(4)  # the step that ran, and none after it


async def test_a_cancel_leaves_the_neighbour_alone(engine: AsyncEngine) -> None:
    asked = generation(steps=20)
    alone = await drawn(engine, asked)
    attempt_id = new_attempt_id()
    heard = asyncio.Event()
    stopping = asyncio.ensure_future(engine.draw(attempt_id, LONG, {}, lambda _: heard.set()))
    neighbour = asyncio.ensure_future(drawn(engine, asked))
    await heard.wait()
    engine.cancel(attempt_id)
    outcome = await stopping
    assert isinstance(outcome, Stopped)
    assert 1 <= outcome.steps_done < 100
    assert close(await neighbour, alone)


async def test_a_cancel_of_nothing_does_nothing(engine: AsyncEngine) -> None:
    engine.cancel(new_attempt_id())
    assert isinstance(await draw(engine, generation(steps=1)), Drawn)


async def test_an_abandoned_drawing_frees_its_model() -> None:
    with running_engine() as engine:
        heard = asyncio.Event()
        drawing = asyncio.ensure_future(draw(engine, LONG, lambda _: heard.set()))
        await heard.wait()
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)
        assert not (await engine.unload(SHAPES)).loaded


async def test_leaving_ends_what_still_runs() -> None:
    options = EngineOptions(models_dir=MODELS_DIR, device="cpu", threads=1)
    async with open_engine(options) as engine:
        heard = asyncio.Event()
        drawing = asyncio.ensure_future(draw(engine, LONG, lambda _: heard.set()))
        await heard.wait()
    outcome = await asyncio.wait_for(drawing, 20)
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.code) == (FailureKind.WORKER, "worker_stopped")
    await asyncio.wait_for(engine.watch(), 20)
    assert (await asyncio.wait_for(draw(engine, LONG), 20)) == Failed(
        outcome.kind, outcome.code, outcome.message
    )


# --- trouble ----------------------------------------------------------------------------------


def _unguided_row(rows: Rows) -> int | None:
    """The row of the only unguided picture, which came before all others; None: there is none."""
    return 0 if rows.samples.shape[0] % 2 else None


def _not_a_number(model: Wrapped, rows: Rows) -> torch.Tensor:
    prediction = model.model.denoise(rows)
    if (row := _unguided_row(rows)) is not None:
        prediction[row] *= torch.nan
    return prediction


def _out_of_memory(model: Wrapped, rows: Rows) -> torch.Tensor:
    if _unguided_row(rows) is None:
        return model.model.denoise(rows)
    raise torch.OutOfMemoryError("planted")


def _no_host_memory(model: Wrapped, rows: Rows) -> torch.Tensor:
    if _unguided_row(rows) is None:
        return model.model.denoise(rows)
    return torch.empty(2**62, dtype=torch.uint8)


def _bug(model: Wrapped, rows: Rows) -> torch.Tensor:
    if _unguided_row(rows) is None:
        return model.model.denoise(rows)
    raise RuntimeError("planted")


def _wrong_shape(model: Wrapped, rows: Rows) -> torch.Tensor:
    prediction = model.model.denoise(rows)
    return prediction if _unguided_row(rows) is None else prediction[:, :2]


@pytest.mark.parametrize(
    ("fault", "code", "kind"),
    [
        (_not_a_number, "non_finite", FailureKind.CALLER),
        (_out_of_memory, "out_of_memory", FailureKind.CALLER),
        (_no_host_memory, "out_of_memory", FailureKind.CALLER),
        (_bug, "engine_error", FailureKind.TRANSIENT),
        (_wrong_shape, "engine_error", FailureKind.TRANSIENT),
    ],
)
async def test_trouble_ends_one_job_and_the_next_one_draws(
    engine: AsyncEngine, fault: Denoise, code: str, kind: FailureKind
) -> None:
    with running_engine(faulty(fault)) as troubled:
        outcome = await draw(troubled, UNGUIDED)
        assert isinstance(outcome, Failed)
        assert (outcome.code, outcome.kind, outcome.steps_done) == (code, kind, 0)
        assert outcome.message
        after = await drawn(troubled, generation())
    assert after == await drawn(engine, generation())


@pytest.mark.parametrize("fault", [_not_a_number, _out_of_memory, _bug, _wrong_shape])
async def test_a_neighbour_draws_on_beside_trouble(engine: AsyncEngine, fault: Denoise) -> None:
    def troubled_from_the_second(model: Wrapped, rows: Rows) -> torch.Tensor:
        return fault(model, rows) if gate.open.is_set() else gate(model, rows)

    gate = Gate()
    with running_engine(faulty(troubled_from_the_second)) as troubled:
        first = asyncio.ensure_future(drawn(troubled, generation(steps=1)))
        assert await asyncio.to_thread(gate.reached.wait, 20)
        drawings = [
            asyncio.ensure_future(draw(troubled, asked))
            for asked in (UNGUIDED, generation(seed=1), generation(seed=2))
        ]
        await asyncio.sleep(0)  # all are asked for while that forward runs: they begin together
        gate.open.set()
        await first
        bad, *good = await asyncio.gather(*drawings)
    assert isinstance(bad, Failed)
    for seed, outcome in zip((1, 2), good, strict=True):
        assert isinstance(outcome, Drawn)
        assert close(outcome, await drawn(engine, generation(seed=seed)))


async def test_where_memory_is_short_fewer_share_a_forward(engine: AsyncEngine) -> None:
    def cramped(model: Wrapped, rows: Rows) -> torch.Tensor:
        tried.append(rows.samples.shape[0])
        if rows.samples.shape[0] > 4:
            raise torch.OutOfMemoryError("planted")
        return model.model.denoise(rows)

    tried: list[int] = []
    jobs = [generation(seed=seed, steps=6) for seed in range(6)]
    with running_engine(faulty(cramped)) as troubled:
        await troubled.load(SHAPES)
        outcomes = await asyncio.gather(*(drawn(troubled, asked) for asked in jobs))
    for asked, outcome in zip(jobs, outcomes, strict=True):
        assert outcome.steps_done == 6
        assert close(outcome, await drawn(engine, asked))
    assert sum(rows > 4 for rows in tried) <= 2  # tried, halved, and not tried again soon
    assert max(tried[-5:]) <= 4


async def test_decoding_too_goes_on_with_fewer(engine: AsyncEngine) -> None:
    class Cramped(Wrapped):
        def decode(
            self,
            latents: torch.Tensor,
            generators: Sequence[torch.Generator],
            width_px: int,
            height_px: int,
            *,
            tiled: bool = False,
        ) -> list[Raster | None]:
            tried.append((len(latents), tiled))
            if len(latents) > 1 or not tiled:
                raise torch.OutOfMemoryError("planted")
            return self.model.decode(latents, generators, width_px, height_px, tiled=tiled)

    tried: list[tuple[int, bool]] = []
    asked = generation(image_count=3, steps=2)
    with running_engine(wrapping(Cramped)) as troubled:
        outcome = await drawn(troubled, asked)
    assert close(outcome, await drawn(engine, asked))
    assert (3, False) in tried
    assert tried[-1] == (1, True)


async def test_a_picture_that_decodes_to_nonsense_fails() -> None:
    class Bright(Wrapped):
        def decode(
            self,
            latents: torch.Tensor,
            generators: Sequence[torch.Generator],
            width_px: int,
            height_px: int,
            *,
            tiled: bool = False,
        ) -> list[Raster | None]:
            spoilt = latents * torch.inf
            return self.model.decode(spoilt, generators, width_px, height_px, tiled=tiled)

    with running_engine(wrapping(Bright)) as engine:
        outcome = await draw(engine, generation(steps=2))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.steps_done) == ("non_finite", 2)


async def test_steps_that_a_sampler_cannot_do_are_the_callers_fault(engine: AsyncEngine) -> None:
    outcome = await draw(engine, generation(sampler="lcm", steps=51))
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.kind) == ("invalid_request", FailureKind.CALLER)


async def test_a_device_that_is_gone_ends_the_engine() -> None:
    def gone(_model: Wrapped, _rows: Rows) -> torch.Tensor:
        raise torch.AcceleratorError("planted: device-side assert")

    with running_engine(faulty(gone)) as engine:
        outcomes = await asyncio.gather(draw(engine, LONG), draw(engine, LONG))
        for outcome in outcomes:
            assert isinstance(outcome, Failed)
            assert outcome.kind is FailureKind.WORKER
        with pytest.raises(torch.AcceleratorError):
            await engine.watch()
        late = await asyncio.wait_for(draw(engine, LONG), 20)
        assert isinstance(late, Failed)
        assert late.kind is FailureKind.WORKER


def test_the_models_folder_is_where_the_tests_think() -> None:
    assert isinstance(MODELS_DIR, Path)
    assert (MODELS_DIR / "shapes-64" / "easel.json").is_file()
