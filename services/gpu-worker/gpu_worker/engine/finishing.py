"""Finished latents on their way to pictures, a bounded part of them between any two steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from gpu_worker.domain.drawing import Failed, Raster
from gpu_worker.engine import failures, metrics
from gpu_worker.engine.device import is_out_of_memory
from gpu_worker.engine.job import JobState, Picture
from gpu_worker.engine.trajectory import Trajectory
from gpu_worker.engine.whole import WholeRun

_BATCH_PIXELS = 2**20
"""Pixels that are decoded in one call: decoders take far more memory a pixel than denoisers."""

_BATCH_PICTURES = 8


class Finishing:
    """Pictures whose pass has ended. Of the engine's thread only."""

    def __init__(
        self,
        is_running: Callable[[JobState], bool],
        make_room: Callable[[], bool],
        fail: Callable[[JobState, Failed], None],
        completed: Callable[[JobState], None],
    ) -> None:
        """Starts empty.

        Args:
            is_running: false for a job that has ended meanwhile.
            make_room: frees memory; whether there was any to free.
            fail: ends a job badly.
            completed: hears that all pictures of a job are done.
        """
        self._is_running = is_running
        self._make_room = make_room
        self._fail = fail
        self._completed = completed
        self._waiting: list[Picture] = []
        self._batch_pictures = _BATCH_PICTURES

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, picture: Picture) -> None:
        """A picture whose pass has no step left."""
        self._waiting.append(picture)

    def work(self, budget_s: float) -> None:
        """Decodes at least one picture, and more while `budget_s` lasts."""
        until_s = time.monotonic() + budget_s
        while self._waiting:
            self._decode(self._next_batch())
            if time.monotonic() >= until_s:
                return

    def _next_batch(self) -> list[Picture]:
        # parked jobs finish too: what is left of them is short, and frees their memory
        self._waiting = [one for one in self._waiting if self._is_running(one.job)]
        batch: list[Picture] = []
        for picture in self._waiting:
            pixels = picture.key.width_px * picture.key.height_px
            room = max(1, min(self._batch_pictures, _BATCH_PIXELS // pixels))
            same = not batch or picture.key == batch[0].key
            if same and len(batch) < room:
                batch.append(picture)
        for picture in batch:
            self._waiting.remove(picture)
        return batch

    def _decode(self, batch: list[Picture]) -> None:
        if not batch:
            return
        began_s = time.monotonic()
        failure: Failed | None = None
        out_of_memory = False
        rasters: list[Raster | None] = []
        try:
            rasters = _decoded(batch, tiled=False)
        except Exception as error:  # noqa: BLE001 (judged, and raised again where it is fatal)
            out_of_memory = is_out_of_memory(error)
            failure = failures.judge(error, batch[0].job.attempt_id)
        if failure is not None:  # outside the except block: its traceback would hold the memory
            rasters = self._try_harder(batch, failure, out_of_memory=out_of_memory)
        took_s = time.monotonic() - began_s
        for picture, raster in zip(batch, rasters, strict=False):
            picture.job.figures.device_s += took_s / len(batch)
            self._deliver(picture, raster)

    def _try_harder(
        self, batch: list[Picture], failure: Failed, *, out_of_memory: bool
    ) -> list[Raster | None]:
        """Several pictures go singly; a single one goes in tiles where memory was short."""
        if out_of_memory:
            metrics.OUT_OF_MEMORY.inc()
            self._make_room()
            self._batch_pictures = max(1, len(batch) // 2)
        if len(batch) > 1:
            self._batch_pictures = 1
            self._waiting[:0] = batch
            return []
        if out_of_memory and isinstance(batch[0].work, Trajectory):
            try:
                return _decoded(batch, tiled=True)
            except Exception as error:  # noqa: BLE001 (as above)
                failure = failures.judge(error, batch[0].job.attempt_id)
        self._fail(batch[0].job, failure)
        return []

    def _deliver(self, picture: Picture, raster: Raster | None) -> None:
        job = picture.job
        if not self._is_running(job):
            return  # a picture of the same job failed in the same batch
        if raster is None:
            self._fail(job, failures.NOT_FINITE)
            return
        failure: Failed | None = None
        try:
            job.finish_pass(picture, raster)
        except Exception as error:  # noqa: BLE001 (as above)
            failure = failures.judge(error, job.attempt_id)
        if failure is not None:
            self._fail(job, replace(failure, steps_done=job.steps_done))
        elif job.drawn() is not None:
            self._completed(job)


def _decoded(batch: list[Picture], *, tiled: bool) -> list[Raster | None]:
    works = list(_trajectories(batch))
    if not works:  # a whole run has decoded by itself
        return [one.work.raster for one in batch if isinstance(one.work, WholeRun)]
    return batch[0].job.stepper.decode(
        torch.cat([work.latents for work in works]),
        [picture.generator for picture in batch],
        batch[0].key.width_px,
        batch[0].key.height_px,
        tiled=tiled,
    )


def _trajectories(batch: list[Picture]) -> Iterator[Trajectory]:
    for picture in batch:
        if isinstance(picture.work, Trajectory):
            yield picture.work
