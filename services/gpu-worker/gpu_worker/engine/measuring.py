"""What a loaded model's forwards cost on this device, measured before anybody waits for one."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping

from easel_kit.ids import AttemptId
from gpu_worker.domain.drawing import Outcome, StepProgress
from gpu_worker.domain.generation import Generation
from gpu_worker.domain.model import ModelCard
from gpu_worker.engine.cost import CostCurve
from gpu_worker.engine.device import is_out_of_memory
from gpu_worker.engine.job import Conditioning, JobState, Order
from gpu_worker.engine.model import CannotDraw, Model
from gpu_worker.engine.stepping import take_step

_BUDGET_S = 2.0
"""Doubling stops once so much has been spent; a large model is measured at few sizes."""

_REPEATS = 3
_MOST_PICTURES = 32

_GAIN = 0.95
"""Doubling goes on while rows cost at most this part of what they cost before."""


class _Nobody:
    """Listens to a job that nobody asked for."""

    def progressed(self, progress: StepProgress) -> None:
        del progress

    def ended(self, outcome: Outcome) -> None:
        del outcome


def measure(model: Model, card: ModelCard, curves: Mapping[Hashable, CostCurve]) -> None:
    """Takes steps with 1, 2, 4, ... pictures of default settings and notes how long they took.

    Raises:
        Exception: not even one picture can step.
    """
    pictures, before, began_s = 1, float("inf"), time.monotonic()
    while pictures <= _MOST_PICTURES and time.monotonic() - began_s < _BUDGET_S:
        job = _made_up(model, card, pictures)
        curve = curves[job.pictures[0].key]
        rows = sum(picture.row_count for picture in job.pictures)
        too_much: Exception | None = None
        try:
            for _ in range(_REPEATS):
                at_s = time.monotonic()
                stepped = take_step(job.pictures, float("inf"))
                if not all(one.finite for one in stepped):
                    raise CannotDraw("its numbers leave their range")  # noqa: TRY301 (as any fault)
                curve.note(rows, time.monotonic() - at_s)
        except Exception as error:  # noqa: BLE001 (memory sets the limit, anything else is raised)
            too_much = error
        if too_much is not None:
            if pictures == 1 or not is_out_of_memory(too_much):
                raise too_much
            curve.ran_out_of_memory(rows)
            return
        cost = (curve.seconds(rows) or 0.0) / rows
        if cost > before * _GAIN:
            return
        pictures, before = 2 * pictures, cost


def _made_up(model: Model, card: ModelCard, pictures: int) -> JobState:
    chosen = card.defaults
    asked = Generation(
        model_key=card.key,
        prompt="a",
        negative_prompt="",
        width_px=chosen.width_px,
        height_px=chosen.height_px,
        steps=max(_REPEATS, chosen.steps),
        guidance=chosen.guidance,
        seed=0,
        sampler=chosen.sampler,
        image_count=pictures,
    )
    model.adapt(())
    positive = model.encode(asked.prompt, negative=False, clip_skip=0)
    guided = model.is_guided(asked.guidance)
    negative = model.encode("", negative=True, clip_skip=0) if guided else None
    order = Order(AttemptId("measure"), asked, {}, _Nobody(), time.monotonic())
    job = JobState(order, (), model, (), (), Conditioning(positive, negative))
    for index in range(pictures):
        job.add_picture(index)
    return job
