"""The thread that owns the device: takes commands, steps jobs, decodes pictures, tells listeners.

Between any two steps jobs join, leave, are set aside and go on. Others talk to it through `post`
only.
"""

from __future__ import annotations

import queue
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from easel_kit.errors import InvalidState
from easel_kit.ids import AttemptId, ModelKey
from easel_kit.log import get_logger
from gpu_worker.domain.drawing import Drawn, Failed, Outcome, StepProgress, Stopped
from gpu_worker.engine import failures, metrics
from gpu_worker.engine.admission import Admission
from gpu_worker.engine.catalogue import Catalogue, Entry
from gpu_worker.engine.commands import (
    Begin,
    Close,
    Command,
    Load,
    Loaded,
    Measure,
    Park,
    Perform,
    Reread,
    Resume,
    Stop,
    Unload,
)
from gpu_worker.engine.cost import CostCurve
from gpu_worker.engine.device import is_out_of_memory
from gpu_worker.engine.failures import STOPPED
from gpu_worker.engine.finishing import Finishing
from gpu_worker.engine.job import JobState, Picture
from gpu_worker.engine.policy import Candidate, FairShare
from gpu_worker.engine.shelf import MakeCache, Shelf
from gpu_worker.engine.stepping import Stepped, take_step
from gpu_worker.engine.whole import WholeRun

_log = get_logger(__name__)

_LEAST_BUDGET_S = 0.005
"""What joins and decodes may take between two steps where those are shorter still."""

StartLoad = Callable[[Entry, Callable[[Command], None]], None]


class StepEngine:
    """All state of running jobs. `run` is the thread's body; other threads may only `post`."""

    def __init__(
        self,
        catalogue: Catalogue,
        device: torch.device,
        *,
        cache: MakeCache,
        embedding_bytes: int,
        max_rows: int,
        preview_interval_s: float,
        load: StartLoad,
        catalogue_changed: Callable[[frozenset[ModelKey]], None],
    ) -> None:
        """Starts nothing.

        Args:
            catalogue: touched by this thread only, once it runs.
            device: where models and latents are.
            cache: makes the cache of loaded models, given how a load is started and who hears of
                changes.
            embedding_bytes: for encoded prompts.
            max_rows: of one forward.
            preview_interval_s: a job is looked at no more often than this.
            load: reads a model's files, here or elsewhere, and gives the answer to its second
                argument, which may be called from any thread.
            catalogue_changed: hears what is in memory after each change of it or of the catalogue.
        """
        self._preview_interval_s = preview_interval_s
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._curves: dict[Hashable, CostCurve] = defaultdict(lambda: CostCurve(max_rows))
        self._shelf = Shelf(
            catalogue,
            device,
            self._curves,
            cache=cache,
            embedding_bytes=embedding_bytes,
            load=lambda entry: load(entry, self.post),
            changed=catalogue_changed,
        )
        self._admission = Admission(catalogue, self._shelf.cache, self._shelf.embeddings)
        self._jobs: dict[AttemptId, JobState] = {}
        self._shares = FairShare()
        self._finishing = Finishing(
            self._is_running, self._shelf.make_room, self._fail, self._complete
        )
        self._step_s = 0.0
        self._closing = False

    def post(self, command: Command) -> None:
        """Leaves a command for the next step boundary; from any thread, never blocks."""
        self._inbox.put(command)

    def run(self) -> None:
        """Works until `Close`; whatever happens, every listener hears an outcome."""
        try:
            with torch.no_grad():
                while not self._closing:
                    self._take_commands()
                    began_s = time.monotonic()
                    self._take_turn()
                    metrics.BUSY_SECONDS.inc(time.monotonic() - began_s)
        finally:
            for order in self._admission.drain():
                order.listener.ended(STOPPED)
            for job in tuple(self._jobs.values()):
                self._end(job, replace(STOPPED, steps_done=job.steps_done))
            self._shelf.close(InvalidState(STOPPED.message))

    def turn_away(self) -> None:
        """Answers what was posted too late; for after the end of `run`, from any thread."""
        with suppress(queue.Empty):
            while True:
                match self._inbox.get_nowait():
                    case Begin(order):
                        order.listener.ended(STOPPED)
                    case Park(_, parked):
                        parked(None)
                    case Resume(_, resumed):
                        resumed(False)  # noqa: FBT003 (an answer)
                    case Perform(reading):
                        reading.cancel()
                    case Load(_, done) | Unload(_, done) | Measure(_, done):
                        done(InvalidState(STOPPED.message))
                    case _:
                        pass

    # --- commands ---------------------------------------------------------------------------

    def _take_commands(self) -> None:
        began_s = time.monotonic()
        idle = not self._has_work()
        try:
            while True:
                self._obey(self._inbox.get(block=idle))
                if idle:
                    metrics.IDLE_SECONDS.inc(time.monotonic() - began_s)
                idle = False
        except queue.Empty:
            return

    def _has_work(self) -> bool:
        steps_left = any(True for _ in self._candidates())
        return steps_left or len(self._finishing) > 0 or self._admission.can_go_on

    def _obey(self, command: Command) -> None:
        match command:
            case Begin(order):
                self._admission.take(order)
            case Stop(attempt_id):
                self._stop(attempt_id)
            case Park(attempt_id, parked):
                parked(self._park(attempt_id))
            case Resume(attempt_id, resumed):
                resumed(self._resume(attempt_id))
            case Load() | Unload() | Loaded() | Measure() | Reread():
                self._shelf.obey(command)
            case Perform():
                command()
            case Close():
                self._closing = True

    def _stop(self, attempt_id: AttemptId) -> None:
        if attempt_id in self._admission:
            self._admission.stop(attempt_id).listener.ended(Stopped(0))
        elif attempt_id in self._jobs:
            job = self._jobs[attempt_id]
            self._end(job, Stopped(job.steps_done))

    def _park(self, attempt_id: AttemptId) -> int | None:
        if attempt_id in self._admission:
            self._admission.park(attempt_id)
            return 0
        job = self._jobs.get(attempt_id)
        if job is None:
            return None
        if job.parked_at_s is None:
            job.parked_at_s = time.monotonic()
            self._shares.leave(attempt_id)
        return job.steps_done

    def _resume(self, attempt_id: AttemptId) -> bool:
        if attempt_id in self._admission:
            self._admission.resume(attempt_id)
            return True
        job = self._jobs.get(attempt_id)
        if job is None:
            return False
        if job.parked_at_s is not None:
            job.figures.parked_s += time.monotonic() - job.parked_at_s
            job.parked_at_s = None
            self._shares.enter(attempt_id)
        return True

    # --- a turn: some joins, one step, some decodes -----------------------------------------

    def _take_turn(self) -> None:
        budget_s = max(_LEAST_BUDGET_S, self._step_s)
        self._admit(budget_s)
        pictures = list(self._candidates())
        if pictures:
            self._step(self._chosen(pictures))
        self._finishing.work(budget_s)
        metrics.ENGINE_JOBS.labels("running").set(len(self._jobs))
        metrics.ENGINE_JOBS.labels("waiting").set(len(self._admission))

    def _admit(self, budget_s: float) -> None:
        until_s = time.monotonic() + budget_s
        while self._admission.can_go_on:
            order = self._admission.peek()
            failure: Failed | None = None
            try:
                job = self._admission.next_job()
                self._jobs[order.attempt_id] = job
                self._shares.enter(order.attempt_id)
            except Exception as error:  # noqa: BLE001 (one job's trouble is not its neighbours')
                failure = failures.judge(error, order.attempt_id)
            if failure is not None:
                order.listener.ended(failure)
            if time.monotonic() >= until_s:
                return

    def _candidates(self) -> Iterator[Picture]:
        for job in self._jobs.values():
            if job.parked_at_s is None:
                for picture in job.pictures:
                    if picture.raster is None and not picture.work.finished:
                        yield picture

    def _chosen(self, pictures: Sequence[Picture]) -> list[Picture]:
        candidates = [
            Candidate(one.job.attempt_id, one.key, one.row_count, one.job.alone) for one in pictures
        ]
        chosen = self._shares.choose(candidates, lambda key: self._curves[key].limit)
        return [pictures[index] for index in chosen]

    def _step(self, pictures: Sequence[Picture]) -> None:
        began_s = time.monotonic()
        waiting = {one.job.attempt_id for one in self._candidates()}
        failure: Failed | None = None
        out_of_memory = False
        stepped: list[Stepped] = []
        try:
            stepped = take_step(pictures, self._preview_interval_s)
        except Exception as error:  # noqa: BLE001 (judged, and raised again where it is fatal)
            out_of_memory = is_out_of_memory(error)
            failure = failures.judge(error, pictures[0].job.attempt_id)
        if failure is not None:  # outside the except block: its traceback would hold the memory
            self._step_failed(pictures, failure, out_of_memory=out_of_memory)
            return
        self._step_s = time.monotonic() - began_s
        self._account(pictures, waiting, self._step_s)
        for one in stepped:
            self._moved(one)

    def _account(
        self, pictures: Sequence[Picture], waiting: set[AttemptId], seconds: float
    ) -> None:
        now_s = time.monotonic()
        total = sum(picture.row_count for picture in pictures)
        rows: dict[Hashable, int] = defaultdict(int)
        for picture in pictures:
            job = picture.job
            rows[job.attempt_id] += picture.row_count
            job.alone = False
            if job.figures.first_step_s is None:
                metrics.FIRST_STEP_SECONDS.observe(now_s - job.order.arrived_s)
            share_s = seconds * picture.row_count / total
            job.figures.note_step(share_s, total, now_s - job.order.arrived_s)
        self._shares.settle(seconds, rows, waiting)
        self._curves[pictures[0].key].note(total, seconds)
        metrics.ROWS.observe(total)
        metrics.PICTURES.observe(len(pictures))
        metrics.STEP_SECONDS.observe(seconds)

    def _step_failed(
        self, pictures: Sequence[Picture], failure: Failed, *, out_of_memory: bool
    ) -> None:
        """Nothing has moved: tries again with fewer, and fails a job only for what it did alone."""
        freed = False
        if out_of_memory:
            metrics.OUT_OF_MEMORY.inc()
            _log.warning("memory.exhausted", pictures=len(pictures), jobs=len(self._jobs))
            self._curves[pictures[0].key].ran_out_of_memory(sum(one.row_count for one in pictures))
            freed = self._shelf.make_room()
        if len(pictures) > 1:
            if not out_of_memory:
                for picture in pictures:
                    picture.job.alone = True
        elif not freed:
            self._fail(pictures[0].job, failure)

    def _moved(self, one: Stepped) -> None:
        job = one.picture.job
        if job.attempt_id not in self._jobs:
            return  # another of its pictures failed in the same forward
        if not one.finite:
            self._fail(job, failures.NOT_FINITE)
        elif one.error is not None:
            self._fail(job, failures.judge(one.error, job.attempt_id))
        else:
            job.steps_done += 1
            metrics.STEPS.inc()
            if one.picture.work.finished:
                self._finishing.add(one.picture)
            job.listener.progressed(StepProgress(job.steps_done, job.steps_total, one.preview))

    # --- ends -------------------------------------------------------------------------------

    def _is_running(self, job: JobState) -> bool:
        return job.attempt_id in self._jobs

    def _fail(self, job: JobState, failure: Failed) -> None:
        self._end(job, replace(failure, steps_done=job.steps_done))

    def _complete(self, job: JobState) -> None:
        drawn = job.drawn()
        assert drawn is not None  # noqa: S101 (who calls this has looked)
        self._end(job, Drawn(drawn, job.steps_done, job.conditioning.warnings))

    def _end(self, job: JobState, outcome: Outcome) -> None:
        del self._jobs[job.attempt_id]
        self._shares.leave(job.attempt_id)
        for picture in job.pictures:
            if isinstance(picture.work, WholeRun):
                picture.work.close()
        if job.parked_at_s is not None:
            job.figures.parked_s += time.monotonic() - job.parked_at_s
        for key in job.keys:
            self._shelf.cache.unpin(key)
        job.listener.ended(replace(outcome, figures=job.figures.total()))
